//! One connection's TLS, in memory: it knows records and no socket.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::Acceptor;
use rustls::{ClientConnection, Connection, HandshakeKind};
use rustls_pki_types::ServerName;

use crate::alert::AlertDescription;
use crate::cert::validity::{NEVER_EXPIRES, with_validity};
use crate::config::CachedConfig;
use crate::context::SSLContext;
use crate::error::{Reason, SSLError};
use crate::failure::{CLOSED_IN_HANDSHAKE, ssl_error};
use crate::sessions::ConnectionSessions;

/// The state of a connection. Nothing in here waits.
pub(crate) struct Engine {
    state: State,
    context: SSLContext,
    /// Whether the peer's certificate is judged, if it shows one.
    judged: bool,
    /// Until when our own certificates and the judgement of a client hold: no session may
    /// end later.
    limit_validity: u64,
    /// Where a client keeps the sessions that its server gives it.
    sessions: Option<Arc<ConnectionSessions>>,
    /// An alert made here, where the library has no connection yet.
    alert: Vec<u8>,
    /// Why the connection is over; every call fails with it from then on.
    failed: Option<SSLError>,
    peer_closed: bool,
    closed: bool,
    server_name: Option<String>,
}

enum State {
    /// A server that has not heard a whole ClientHello: which context counts is open.
    AwaitingClientHello(Box<Acceptor>),
    Established(Box<Connection>),
    Failed,
}

impl Engine {
    pub(crate) fn server(context: &SSLContext) -> io::Result<Engine> {
        // Its faults are the server's own, and not this client's.
        context.server_config()?;
        Ok(Engine::new(State::AwaitingClientHello(Box::default()), context, None))
    }

    pub(crate) fn client(
        context: &SSLContext,
        name: ServerName<'static>,
        server_name: Option<&str>,
    ) -> io::Result<Engine> {
        let CachedConfig { mut config, judges, sessions, .. } = context.client_config()?;
        let sessions = sessions.map(|sessions| Arc::new(ConnectionSessions::new(sessions, judges)));
        if let Some(sessions) = &sessions {
            Arc::make_mut(&mut config).resumption = Resumption::store(Arc::clone(sessions) as _);
        }
        let connection = ClientConnection::new(config, name).map_err(|e| ssl_error(&e))?;
        let state = State::Established(Box::new(Connection::Client(connection)));
        let server_name = server_name.map(str::to_owned);
        Ok(Engine { judged: judges, sessions, ..Engine::new(state, context, server_name) })
    }

    fn new(state: State, context: &SSLContext, server_name: Option<String>) -> Engine {
        let context = context.clone();
        let alert = Vec::new();
        let judged = false;
        Engine {
            state,
            context,
            judged,
            limit_validity: NEVER_EXPIRES,
            sessions: None,
            alert,
            failed: None,
            peer_closed: false,
            closed: false,
            server_name,
        }
    }

    /// Takes in a record, or bytes that are none.
    pub(crate) fn read_tls(&mut self, record: &[u8]) -> Result<(), SSLError> {
        self.check()?;
        let fed = match &self.state {
            State::AwaitingClientHello(_) => self.feed_hello(record),
            State::Established(_) => self.feed_live(record),
            // Somebody's callback has panicked in the middle of it.
            State::Failed => Err(SSLError::new(Reason::Internal, "the handshake was given up")),
        };
        fed.inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn feed_hello(&mut self, record: &[u8]) -> Result<(), SSLError> {
        match record.first() {
            Some(22) => {}
            Some(21) => return Err(alert_in(record)),
            _ => return Err(self.refuse_stranger(record)),
        }
        if is_too_old(record) {
            self.alert = plain_alert(70);
            return Err(SSLError::new(
                Reason::UnsupportedProtocol,
                "no version of TLS in common: the client speaks an older one",
            ));
        }
        let State::AwaitingClientHello(acceptor) = &mut self.state else {
            return Ok(());
        };
        let mut rest = record;
        while !rest.is_empty() {
            let taken = acceptor.read_tls(&mut rest).map_err(internal)?;
            if taken == 0 {
                break;
            }
        }
        match acceptor.accept() {
            Ok(None) => Ok(()),
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_owned);
                self.server_name = name;
                self.state = State::Failed;
                let config = self.choose_config()?;
                if config.cert_resolver.resolve(accepted.client_hello()).is_none() {
                    return Err(self.refuse_without_certificate());
                }
                match with_validity(&mut self.limit_validity, || accepted.into_connection(config)) {
                    Ok(connection) => {
                        self.state = State::Established(Box::new(Connection::Server(connection)));
                        Ok(())
                    }
                    Err((error, mut alert)) => {
                        let error = ssl_error(&error);
                        match error.reason() {
                            // The library says access_denied where no certificate fits.
                            Reason::NoSharedCipher => self.alert = plain_alert(40),
                            _ => drop(alert.write_all(&mut self.alert)),
                        }
                        Err(error)
                    }
                }
            }
            Err((error, mut alert)) => {
                let _ = alert.write_all(&mut self.alert);
                Err(ssl_error(&error))
            }
        }
    }

    fn choose_config(&mut self) -> Result<Arc<rustls::ServerConfig>, SSLError> {
        let name = self.server_name.as_deref();
        match self.context.for_server_name(name) {
            Ok(None) => {}
            Ok(Some(context)) => self.context = context,
            Err(alert) => {
                self.alert = plain_alert(alert.as_raw());
                let message = format!("the client asked for {}, which is refused", requested_name(name));
                return Err(SSLError::new(Reason::UnrecognizedName, message));
            }
        }
        let made = self.context.server_config().map_err(|error| {
            self.alert = plain_alert(80);
            SSLError::new(Reason::BadConfiguration, error.to_string())
        })?;
        self.judged = made.judges;
        self.limit_validity = made.shown_until;
        Ok(made.config)
    }

    /// The library would say only that there is none.
    fn refuse_without_certificate(&mut self) -> SSLError {
        let name = self.server_name.as_deref();
        let (alert, reason, what) = match self.context.has_certificate_for(name) {
            true => (40, Reason::NoSharedCipher, "a signature the client knows"),
            false => (112, Reason::UnrecognizedName, "that"),
        };
        self.alert = plain_alert(alert);
        SSLError::new(
            reason,
            format!("the client asked for {}, and no certificate is for {what}", requested_name(name)),
        )
    }

    fn refuse_stranger(&mut self, bytes: &[u8]) -> SSLError {
        // RFC 8446, 5: a record of another type is an unexpected message.
        self.alert = plain_alert(10);
        detect_plaintext_peer(bytes)
            .unwrap_or_else(|| SSLError::new(Reason::WrongVersionNumber, "the peer does not speak TLS"))
    }

    fn feed_live(&mut self, record: &[u8]) -> Result<(), SSLError> {
        let State::Established(connection) = &mut self.state else {
            return Ok(());
        };
        let mut rest = record;
        while !rest.is_empty() {
            if connection.read_tls(&mut rest).map_err(internal)? == 0 {
                break;
            }
            let handshaking = connection.is_handshaking();
            let processed = with_validity(&mut self.limit_validity, || connection.process_new_packets());
            // Before the record that brings a session.
            if let Some(sessions) = &self.sessions {
                let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
                sessions.learn(connection.peer_certificates(), is_resumed);
            }
            match processed {
                Ok(state) => self.peer_closed |= state.peer_has_closed(),
                Err(error) => {
                    let stranger = handshaking.then(|| detect_plaintext_peer(record)).flatten();
                    return Err(stranger.unwrap_or_else(|| ssl_error(&error)));
                }
            }
        }
        if self.peer_closed && self.is_handshaking() {
            return Err(SSLError::new(Reason::ClosedInHandshake, CLOSED_IN_HANDSHAKE));
        }
        Ok(())
    }

    /// Plaintext that is there; `None` if more has to be fed first. 0 is the end.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Result<Option<usize>, SSLError> {
        if let State::Established(connection) = &mut self.state {
            match connection.reader().read(out) {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(internal(error)),
            }
        }
        self.check()?;
        Ok(None)
    }

    /// Makes records of some of `data` and tells how much that was.
    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.check()?;
        match &mut self.state {
            State::Established(connection) if !self.closed => connection.writer().write(data),
            _ => Err(io::Error::new(io::ErrorKind::BrokenPipe, "TLS was shut down")),
        }
    }

    pub(crate) fn wants_write(&self) -> bool {
        match &self.state {
            State::Established(connection) => connection.wants_write(),
            _ => !self.alert.is_empty(),
        }
    }

    /// Moves what has to be sent into `out`.
    pub(crate) fn write_tls(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.alert);
        if let State::Established(connection) = &mut self.state {
            while connection.wants_write() {
                // Into memory: it neither fails nor stops halfway.
                if connection.write_tls(out).is_err() {
                    break;
                }
            }
        }
    }

    /// Ends our side with a close_notify, once.
    pub(crate) fn close(&mut self) {
        // A peer that has ended its side without a close_notify still gets ours: each
        // direction ends by itself (RFC 8446, 6.1).
        let is_cut = |error: &SSLError| error.reason() == Reason::UnexpectedEof;
        let may_end = self.failed.as_ref().is_none_or(is_cut);
        if let State::Established(connection) = &mut self.state {
            if !self.closed && may_end {
                self.closed = true;
                connection.send_close_notify();
            }
        }
    }

    /// Ends the connection with an error that came from outside.
    pub(crate) fn fail(&mut self, error: SSLError) {
        self.failed.get_or_insert(error);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        match &self.state {
            State::AwaitingClientHello(_) | State::Failed => true,
            State::Established(connection) => connection.is_handshaking(),
        }
    }

    pub(crate) fn pending(&mut self) -> usize {
        match &mut self.state {
            // Without new packets this only counts.
            State::Established(connection) if self.failed.is_none() => {
                connection.process_new_packets().map_or(0, |state| state.plaintext_bytes_to_read())
            }
            _ => 0,
        }
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.live().is_some_and(|live| live.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    pub(crate) fn live(&self) -> Option<&Connection> {
        match &self.state {
            State::Established(connection) => Some(connection),
            _ => None,
        }
    }

    pub(crate) fn context(&self) -> &SSLContext {
        &self.context
    }

    pub(crate) fn peer_verified(&self) -> bool {
        self.judged
    }

    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    pub(crate) fn check(&self) -> Result<(), SSLError> {
        self.failed.clone().map_or(Ok(()), Err)
    }
}

/// What a client asked for.
fn requested_name(name: Option<&str>) -> String {
    name.map_or("no name".into(), |name| format!("the name '{name}'"))
}

/// A fatal alert from before there are keys.
fn plain_alert(number: u8) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, number]
}

/// What an alert says that comes instead of a ClientHello.
fn alert_in(record: &[u8]) -> SSLError {
    match record.get(6) {
        Some(0) => SSLError::new(Reason::ClosedInHandshake, CLOSED_IN_HANDSHAKE),
        number => {
            let alert = AlertDescription::from_raw(number.copied().unwrap_or(10));
            SSLError::new(Reason::Alert(alert), format!("the peer refused: alert {}", alert.name()))
        }
    }
}

/// A ClientHello of TLS 1.1 or below: whoever speaks a later version says 1.2 in
/// there. The library would find other faults in it first.
fn is_too_old(record: &[u8]) -> bool {
    matches!(record.get(5..11), Some([1, _, _, _, 3, 0..3]))
}

/// Who speaks something else that can be told.
fn detect_plaintext_peer(bytes: &[u8]) -> Option<SSLError> {
    const REQUESTS: [&[u8]; 8] =
        [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"PATCH "];
    let begins = |word: &&[u8]| bytes.starts_with(word) || (bytes.len() >= 4 && word.starts_with(bytes));
    if REQUESTS.iter().any(begins) {
        return Some(SSLError::new(Reason::HttpRequest, "plain HTTP came to a port of TLS (https://)"));
    }
    if bytes.starts_with(b"HTTP/") {
        return Some(SSLError::new(
            Reason::WrongVersionNumber,
            "the server answers in plain HTTP, not TLS",
        ));
    }
    None
}

fn internal(error: io::Error) -> SSLError {
    SSLError::new(Reason::Internal, error.to_string())
}
