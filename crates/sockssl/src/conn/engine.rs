//! The TLS state of one connection. It works on records in memory and has no socket.

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
use crate::sessions::ConnectionSessions;

/// The TLS state of a connection. No method blocks.
pub(crate) struct Engine {
    state: State,
    context: SSLContext,
    /// Whether a certificate of the peer is verified.
    verifies_peer: bool,
    /// The time at which the first of the own certificates, or of those that the verification
    /// of the client depends on, expires. No session may be resumed later.
    valid_until: u64,
    /// The store for the sessions that the server sends to a client.
    sessions: Option<Arc<ConnectionSessions>>,
    /// An alert to send that was made here, before the library has a connection.
    alert: Vec<u8>,
    /// The error that ended the connection. Every later call returns it.
    failed: Option<SSLError>,
    peer_closed: bool,
    closed: bool,
    server_name: Option<String>,
}

enum State {
    /// A server that has not received a complete ClientHello. The context is not known yet.
    AwaitingClientHello(Box<Acceptor>),
    /// The handshake has started or is done.
    Established(Box<Connection>),
    /// The ClientHello was refused, or the SNI callback panicked.
    Failed,
}

impl Engine {
    pub(crate) fn server(context: &SSLContext) -> io::Result<Engine> {
        // An invalid configuration is reported before the client is involved.
        context.server_config()?;
        Ok(Engine::new(State::AwaitingClientHello(Box::default()), context, None))
    }

    pub(crate) fn client(
        context: &SSLContext,
        name: ServerName<'static>,
        server_name: Option<&str>,
    ) -> io::Result<Engine> {
        let CachedConfig { mut config, verifies_peer, sessions, .. } = context.client_config()?;
        let sessions = sessions.map(|sessions| Arc::new(ConnectionSessions::new(sessions, verifies_peer)));
        if let Some(sessions) = &sessions {
            Arc::make_mut(&mut config).resumption = Resumption::store(Arc::clone(sessions) as _);
        }
        let connection = ClientConnection::new(config, name).map_err(|error| SSLError::from(&error))?;
        let state = State::Established(Box::new(Connection::Client(connection)));
        let server_name = server_name.map(str::to_owned);
        Ok(Engine { verifies_peer, sessions, ..Engine::new(state, context, server_name) })
    }

    fn new(state: State, context: &SSLContext, server_name: Option<String>) -> Engine {
        let context = context.clone();
        let alert = Vec::new();
        let verifies_peer = false;
        Engine {
            state,
            context,
            verifies_peer,
            valid_until: NEVER_EXPIRES,
            sessions: None,
            alert,
            failed: None,
            peer_closed: false,
            closed: false,
            server_name,
        }
    }

    /// Processes a received record, or bytes that are not a record.
    pub(crate) fn read_tls(&mut self, record: &[u8]) -> Result<(), SSLError> {
        self.check()?;
        let result = match &self.state {
            State::AwaitingClientHello(_) => self.read_client_hello(record),
            State::Established(_) => self.process_records(record),
            // The SNI callback panicked during an earlier call.
            State::Failed => Err(SSLError::new(Reason::Internal, "the handshake was aborted")),
        };
        result.inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn read_client_hello(&mut self, record: &[u8]) -> Result<(), SSLError> {
        match record.first() {
            Some(22) => {}
            Some(21) => return Err(parse_plaintext_alert(record)),
            _ => return Err(self.reject_non_tls(record)),
        }
        if is_too_old(record) {
            self.alert = plaintext_alert(70);
            return Err(SSLError::new(
                Reason::UnsupportedProtocol,
                "no TLS version in common: the client supports older versions only",
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
                    return Err(self.reject_unknown_name());
                }
                match with_validity(&mut self.valid_until, || accepted.into_connection(config)) {
                    Ok(connection) => {
                        self.state = State::Established(Box::new(Connection::Server(connection)));
                        Ok(())
                    }
                    Err((error, mut alert)) => {
                        let error = SSLError::from(&error);
                        match error.reason() {
                            // The library sends access_denied if no certificate fits.
                            Reason::NoSharedCipher => self.alert = plaintext_alert(40),
                            _ => drop(alert.write_all(&mut self.alert)),
                        }
                        Err(error)
                    }
                }
            }
            Err((error, mut alert)) => {
                let _ = alert.write_all(&mut self.alert);
                Err(SSLError::from(&error))
            }
        }
    }

    fn choose_config(&mut self) -> Result<Arc<rustls::ServerConfig>, SSLError> {
        let name = self.server_name.as_deref();
        match self.context.for_server_name(name) {
            Ok(None) => {}
            Ok(Some(context)) => self.context = context,
            Err(alert) => {
                self.alert = plaintext_alert(alert.as_raw());
                let message = format!("the SNI callback refused {}", requested_name(name));
                return Err(SSLError::new(Reason::UnrecognizedName, message));
            }
        }
        let cached = self.context.server_config().map_err(|error| {
            self.alert = plaintext_alert(80);
            SSLError::new(Reason::BadConfiguration, error.to_string())
        })?;
        self.verifies_peer = cached.verifies_peer;
        self.valid_until = cached.certs_valid_until;
        Ok(cached.config)
    }

    /// Makes the error and the alert for a ClientHello that no certificate fits. The library's
    /// error does not say whether the name or the signature schemes are the cause.
    fn reject_unknown_name(&mut self) -> SSLError {
        let name = self.server_name.as_deref();
        let (alert, reason, cause) = match self.context.has_certificate_for(name) {
            true => (40, Reason::NoSharedCipher, " has a signature scheme that the client supports"),
            false => (112, Reason::UnrecognizedName, ""),
        };
        self.alert = plaintext_alert(alert);
        SSLError::new(reason, format!("no certificate for {}{cause}", requested_name(name)))
    }

    fn reject_non_tls(&mut self, bytes: &[u8]) -> SSLError {
        // RFC 8446, section 5: a record of another type is an unexpected message.
        self.alert = plaintext_alert(10);
        detect_plaintext_peer(bytes)
            .unwrap_or_else(|| SSLError::new(Reason::WrongVersionNumber, "the peer does not speak TLS"))
    }

    fn process_records(&mut self, record: &[u8]) -> Result<(), SSLError> {
        let State::Established(connection) = &mut self.state else {
            return Ok(());
        };
        let mut rest = record;
        while !rest.is_empty() {
            if connection.read_tls(&mut rest).map_err(internal)? == 0 {
                break;
            }
            let handshaking = connection.is_handshaking();
            let processed = with_validity(&mut self.valid_until, || connection.process_new_packets());
            // This has to happen before the record that contains a session is processed.
            if let Some(sessions) = &self.sessions {
                let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
                sessions.record_chain(connection.peer_certificates(), is_resumed);
            }
            match processed {
                Ok(state) => self.peer_closed |= state.peer_has_closed(),
                Err(error) => {
                    let plaintext_peer = handshaking.then(|| detect_plaintext_peer(record)).flatten();
                    return Err(plaintext_peer.unwrap_or_else(|| SSLError::from(&error)));
                }
            }
        }
        if self.peer_closed && self.is_handshaking() {
            return Err(SSLError::closed_in_handshake());
        }
        Ok(())
    }

    /// Reads decrypted data. Returns `None` if more records are needed, and 0 at the end of file.
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

    /// Encrypts the first part of `data` and returns its length.
    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.check()?;
        match &mut self.state {
            State::Established(connection) if !self.closed => connection.writer().write(data),
            _ => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the TLS connection was shut down")),
        }
    }

    pub(crate) fn wants_write(&self) -> bool {
        match &self.state {
            State::Established(connection) => connection.wants_write(),
            _ => !self.alert.is_empty(),
        }
    }

    /// Appends the records that have to be sent to `out`.
    pub(crate) fn write_tls(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.alert);
        if let State::Established(connection) = &mut self.state {
            while connection.wants_write() {
                // Writing to memory neither fails nor stops early.
                if connection.write_tls(out).is_err() {
                    break;
                }
            }
        }
    }

    /// Queues a close_notify. Later calls do nothing.
    pub(crate) fn close(&mut self) {
        // A close_notify is sent even if the peer closed its side without one, because each
        // direction is closed separately (RFC 8446, section 6.1).
        let is_cut = |error: &SSLError| error.reason() == Reason::UnexpectedEof;
        let may_end = self.failed.as_ref().is_none_or(is_cut);
        if let State::Established(connection) = &mut self.state {
            if !self.closed && may_end {
                self.closed = true;
                connection.send_close_notify();
            }
        }
    }

    /// Ends the connection with an error that was detected outside the engine.
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
            // Without new records this only returns the counters.
            State::Established(connection) if self.failed.is_none() => {
                connection.process_new_packets().map_or(0, |state| state.plaintext_bytes_to_read())
            }
            _ => 0,
        }
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.connection()
            .is_some_and(|connection| connection.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    pub(crate) fn connection(&self) -> Option<&Connection> {
        match &self.state {
            State::Established(connection) => Some(connection),
            _ => None,
        }
    }

    pub(crate) fn context(&self) -> &SSLContext {
        &self.context
    }

    pub(crate) fn peer_verified(&self) -> bool {
        self.verifies_peer
    }

    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    pub(crate) fn check(&self) -> Result<(), SSLError> {
        self.failed.clone().map_or(Ok(()), Err)
    }
}

/// Describes the server name in the ClientHello.
fn requested_name(name: Option<&str>) -> String {
    name.map_or("a ClientHello without a server name".into(), |name| format!("the server name '{name}'"))
}

/// Makes a fatal alert that is sent before there are keys.
fn plaintext_alert(number: u8) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, number]
}

/// Makes the error for an alert that arrives instead of a ClientHello.
fn parse_plaintext_alert(record: &[u8]) -> SSLError {
    match record.get(6) {
        Some(0) => SSLError::closed_in_handshake(),
        number => SSLError::from_alert(AlertDescription::from_raw(number.copied().unwrap_or(10))),
    }
}

/// Whether the record is a ClientHello of TLS 1.1 or older. A client that supports a later
/// version has 1.2 in this field. The library would report another error first.
fn is_too_old(record: &[u8]) -> bool {
    matches!(record.get(5..11), Some([1, _, _, _, 3, 0..3]))
}

/// Makes the error for a peer that speaks plain HTTP.
fn detect_plaintext_peer(bytes: &[u8]) -> Option<SSLError> {
    const REQUESTS: [&[u8]; 8] =
        [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"PATCH "];
    let begins = |word: &&[u8]| bytes.starts_with(word) || (bytes.len() >= 4 && word.starts_with(bytes));
    if REQUESTS.iter().any(begins) {
        return Some(SSLError::new(
            Reason::HttpRequest,
            "the client sent a plain HTTP request to a TLS port (use https://)",
        ));
    }
    if bytes.starts_with(b"HTTP/") {
        return Some(SSLError::new(
            Reason::WrongVersionNumber,
            "the server sent a plain HTTP response instead of TLS",
        ));
    }
    None
}

fn internal(error: io::Error) -> SSLError {
    SSLError::new(Reason::Internal, error.to_string())
}
