//! The side of a handover that leaves its listeners to a successor.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sock::{Address, Credentials, POLLIN, Poll, Socket, errno};

use crate::lifecycle::duty::{Duty, Next};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::handover::protocol::{self, HELLO, LineReader, Offer, READY, REFUSED, RELEASED};
use crate::lifecycle::handover::trigger::Trigger;
use crate::lifecycle::release::Handing;
use crate::limits::log_limit::{LogKind, log_limited};
use crate::os::bound_path::BoundPath;
use crate::os::exec;
use crate::os::log::{errno_field, milliseconds};
use crate::os::pair::pair;
use crate::os::process::{self, Pid, WaitStatus};
use crate::os::shortage;

/// How often a child that was killed is checked for its end.
const REAP_INTERVAL: Duration = Duration::from_millis(20);

/// How long no successor is accepted after an error of accept(2), such as `EMFILE`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a refusal is sent that the system had no memory for.
const REFUSE_INTERVAL: Duration = Duration::from_millis(20);

/// How many connections to the control socket are accepted in one turn.
const MAX_ACCEPTED: usize = 16;

/// Waits for successors, and hands the listeners over to the first one that is ready.
pub(crate) struct Offering {
    /// Where successors connect, and their limits.
    control: Option<(ControlSocket, Limits)>,
    upgrade: Option<Trigger>,
    session: Option<Session>,
    /// The successor that waits for the end of the loop.
    committed: Option<Arc<Socket>>,
    /// No successor is accepted before: there was no descriptor for one.
    accept_after: Option<Instant>,
    /// Successors whose handover has failed, and that could not be informed yet. The end of the connection
    /// alone would mean that this process has died.
    refused: Vec<(Arc<Socket>, String)>,
    /// Children that were killed and are not reaped yet.
    killed: Vec<Pid>,
    /// The loop accepts.
    is_serving: bool,
    /// The loop also serves. It ends only when its connection does, and the successor waits for that.
    serves_in_loop: bool,
}

/// How long a successor has until it is ready, and the server to drain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) timeout: Duration,
    pub(crate) drain: Duration,
    /// How long idle connections stay open in the drain.
    pub(crate) idle_grace: Duration,
}

/// The Unix socket to which successors connect.
pub(crate) struct ControlSocket {
    /// Dropped before the socket: see [`BoundPath`].
    pub(crate) path: Option<BoundPath>,
    pub(crate) socket: Arc<Socket>,
}

/// A handover that has begun.
struct Session {
    peer: Arc<Socket>,
    reader: LineReader,
    has_offer: bool,
    /// `None`: without a limit.
    until: Option<Instant>,
    limits: Limits,
    pid: Option<i32>,
    /// The successor is a child of this process.
    is_child: bool,
}

/// What the last step with a successor was.
enum Step {
    Waiting,
    Offered,
    Released,
}

impl Offering {
    pub(crate) fn new(
        control: Option<(ControlSocket, Limits)>,
        upgrade: Option<Trigger>,
        serves_in_loop: bool,
    ) -> Offering {
        Offering {
            control,
            upgrade,
            session: None,
            committed: None,
            accept_after: None,
            refused: Vec::new(),
            killed: Vec::new(),
            is_serving: false,
            serves_in_loop,
        }
    }

    fn accept(&mut self) -> Option<Socket> {
        let control = &self.control.as_ref()?.0.socket;
        if self.accept_after.is_some_and(|after| Instant::now() < after) {
            return None;
        }
        self.accept_after = None;
        // A successor has a duplicate, and may have made the socket blocking.
        let ready = sock::poll(&mut [Poll::new(&**control, POLLIN)], Some(Duration::ZERO));
        if !ready.is_ok_and(|ready| ready > 0) {
            return None;
        }
        // With the program's default timeout each call would wait.
        let accepted = control.accept().and_then(|(peer, _)| peer.setblocking(false).map(|()| peer));
        match accepted {
            Ok(peer) => Some(peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                let kind = LogKind::Other(error.kind(), errno(&error));
                log_limited!(
                    warn, kind, errno = errno_field(&error), limit_ms = milliseconds(ACCEPT_PAUSE);
                    "cannot accept a successor: {error}"
                );
                // The successor stays in the queue, and the socket readable.
                self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                None
            }
        }
    }

    /// Begins a handover. Only one at a time is served.
    fn begin(&mut self, peer: Socket, server: &ServerHandle) -> io::Result<()> {
        let (theirs, own) = (peer.peer_credentials()?, Credentials::current().uid);
        let reason = if theirs.uid != own && theirs.uid != 0 {
            Some(format!("user {} may not take over a server of user {own}", theirs.uid))
        } else if self.session.is_some() || self.committed.is_some() {
            Some("another handover is in progress".to_owned())
        } else if server.is_stopping() {
            Some("the server does not serve".to_owned())
        } else {
            None
        };
        if let Some(reason) = reason {
            let _ = protocol::send(&peer, &format!("{REFUSED}{reason}"), &[]);
            return Err(io::Error::other(reason));
        }
        let Some((_, limits)) = &self.control else { return Ok(()) };
        self.session = Some(Session {
            peer: Arc::new(peer),
            reader: LineReader::default(),
            has_offer: false,
            until: Instant::now().checked_add(limits.timeout),
            limits: *limits,
            pid: theirs.pid,
            is_child: false,
        });
        server.set_handing(Handing::InProgress);
        Ok(())
    }

    /// Starts the new version of the program, if that was requested.
    fn upgrade(&mut self, server: &ServerHandle) -> io::Result<()> {
        let Some(trigger) = self.upgrade.as_ref().filter(|trigger| trigger.is_due()) else {
            return Ok(());
        };
        if self.session.is_some() || self.committed.is_some() {
            return Err(io::Error::other("another handover is in progress"));
        }
        let (peer, theirs) = pair()?;
        let pid = exec::spawn(&trigger.program, &trigger.arguments, &server.listeners()?, &theirs)?;
        drop(theirs);
        log::info!(
            path:% = trigger.program.display(), pid = pid;
            "started {} as process {pid}", trigger.program.display()
        );
        let limits = trigger.limits;
        self.session = Some(Session {
            peer: Arc::new(peer),
            reader: LineReader::default(),
            has_offer: true,
            until: Instant::now().checked_add(limits.timeout),
            limits,
            pid: Some(pid),
            is_child: true,
        });
        server.set_handing(Handing::InProgress);
        let peer = self.session.as_ref().map(|session| Arc::clone(&session.peer));
        let sent = peer.map(|peer| self.send_offer(&peer, server, false));
        if let Some(Err(error)) = sent {
            self.roll_back(&error, server);
        }
        Ok(())
    }

    /// Takes the next step with the successor.
    fn advance(&mut self, server: &ServerHandle) -> io::Result<Step> {
        let Some(session) = &mut self.session else { return Ok(Step::Waiting) };
        let Some(line) = session.reader.receive(&session.peer)? else {
            if session.until.is_some_and(|until| Instant::now() >= until) {
                let error = if session.has_offer { "it was not ready in time" } else { "it was silent" };
                return Err(io::Error::new(io::ErrorKind::TimedOut, error));
            }
            return Ok(Step::Waiting);
        };
        match (session.has_offer, &*line) {
            (false, HELLO) => {
                session.has_offer = true;
                let peer = Arc::clone(&session.peer);
                self.send_offer(&peer, server, true)?;
                Ok(Step::Offered)
            }
            (false, _) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "another version of the handover"))
            }
            (true, READY) => {
                // It may have been killed after the message.
                protocol::check_silent(&session.peer)?;
                server.release_listeners()?;
                Ok(Step::Released)
            }
            (true, _) => Err(io::Error::new(io::ErrorKind::InvalidData, "unknown message in a handover")),
        }
    }

    /// Sends what is offered. A child has inherited the listeners.
    fn send_offer(&self, peer: &Socket, server: &ServerHandle, sends_listeners: bool) -> io::Result<()> {
        let mut sockets = server.listeners()?;
        if sockets.len() > protocol::MAX_LISTENERS {
            let sentence = format!("more than {} listeners", protocol::MAX_LISTENERS);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        let addresses: Vec<_> = sockets.iter().map(|socket| socket.getsockname().ok()).collect();
        let paths = server.paths().lock();
        let file = |address: &Option<Address>| {
            let address = address.as_ref()?;
            paths.iter().find(|path| Some(path.path()) == address.path()).map(BoundPath::file)
        };
        let mut files: Vec<_> = addresses.iter().map(file).collect();
        drop(paths);
        if !sends_listeners {
            sockets.clear();
        }
        if let Some((control, _)) = &self.control {
            sockets.push(control.socket.dup()?);
            files.push(control.path.as_ref().map(BoundPath::file));
        }
        let offer = Offer { is_own: !server.shares_listeners(), files };
        // If this process is killed from now on, the successor accepts.
        server.set_offers_listeners(true);
        protocol::send_offer(peer, &offer, &sockets)
    }

    fn path(&self) -> Option<&BoundPath> {
        self.control.as_ref()?.0.path.as_ref()
    }

    /// Begins the drain. The listeners are released.
    fn commit(&mut self, server: &ServerHandle) -> Next {
        let Some(session) = self.session.take() else { return Next::Continue };
        let (pid, limit) = (session.pid, session.limits.drain);
        log::info!(
            pid = pid, limit_ms = milliseconds(limit);
            "process {} takes over: draining for up to {limit:?}", shown(pid)
        );
        if let Some(path) = self.path() {
            path.hand_over();
        }
        let pid = session.pid.and_then(|pid| u32::try_from(pid).ok());
        server.set_handing(Handing::Done(pid.unwrap_or(0)));
        if !self.serves_in_loop {
            server.registry().set_idle_grace(session.limits.idle_grace);
        }
        self.committed = Some(session.peer);
        Next::Drain(limit)
    }

    /// Ends a handover that has failed. The server goes on.
    fn roll_back(&mut self, error: &io::Error, server: &ServerHandle) {
        let Some(session) = self.session.take() else { return };
        self.refused.push((Arc::clone(&session.peer), format!("{REFUSED}{error}")));
        let pid = session.pid;
        log::warn!(
            pid = pid, errno = errno_field(error);
            "handover to process {} failed, continue serving: {error}", shown(pid)
        );
        if let Some(child) = session.pid.filter(|_| session.is_child) {
            process::kill(child);
            self.killed.push(child);
        }
        server.set_handing(Handing::Nothing);
        self.send_refusals(server);
        // The successor has made the listeners non-blocking.
        server.restore_blocking();
    }

    /// Sends refusals, without waiting. One that cannot be sent now is sent later.
    fn send_refusals(&mut self, server: &ServerHandle) {
        if self.refused.is_empty() {
            return;
        }
        self.refused.retain(|(peer, line)| match protocol::send(peer, line, &[]) {
            Err(error) => error.kind() == io::ErrorKind::WouldBlock || shortage::is_shortage(&error),
            Ok(()) => false,
        });
        if self.refused.is_empty() && self.session.is_none() {
            server.set_offers_listeners(false);
        }
    }

    /// Sends that the loop has ended, and leaves the control socket to the successor.
    fn finish(&mut self) {
        let Some(peer) = self.committed.take() else { return };
        if let Err(error) = protocol::send(&peer, RELEASED, &[]) {
            log::error!(errno = errno_field(&error); "the successor has ended after it was ready: {error}");
        }
        self.control = None;
    }
}

impl Duty for Offering {
    fn waits_for(&self, sockets: &mut Vec<Arc<Socket>>) -> Option<Instant> {
        if !self.is_serving {
            return None;
        }
        if self.accept_after.is_none() {
            sockets.extend(self.control.as_ref().map(|(control, _)| Arc::clone(&control.socket)));
        }
        sockets.extend(self.upgrade.as_ref().map(Trigger::receiver));
        sockets.extend(self.session.as_ref().map(|session| Arc::clone(&session.peer)));
        let reaping = (!self.killed.is_empty()).then(|| Instant::now() + REAP_INTERVAL);
        let refusing = (!self.refused.is_empty()).then(|| Instant::now() + REFUSE_INTERVAL);
        let until = self.session.as_ref().and_then(|session| session.until);
        [reaping, refusing, self.accept_after, until].into_iter().flatten().min()
    }

    fn run(&mut self, server: &ServerHandle) -> Next {
        if !self.is_serving {
            return Next::Continue;
        }
        self.killed.retain(|child| process::wait_child(*child) == WaitStatus::Running);
        self.send_refusals(server);
        if let Err(error) = self.upgrade(server) {
            log::error!(errno = errno_field(&error); "cannot start the new version: {error}");
        }
        for _ in 0..MAX_ACCEPTED {
            let next = self.accept();
            // A successor that has died before the next one connected makes room for it.
            let is_released = loop {
                match self.advance(server) {
                    Ok(Step::Waiting) => break false,
                    Ok(Step::Offered) => {}
                    Ok(Step::Released) => break true,
                    Err(error) => self.roll_back(&error, server),
                }
            };
            let had_next = next.is_some();
            if let Some(Err(error)) = next.map(|peer| self.begin(peer, server)) {
                log::warn!(errno = errno_field(&error); "refuse a handover: {error}");
            }
            if is_released {
                return self.commit(server);
            }
            if !had_next {
                break;
            }
        }
        Next::Continue
    }

    fn serving(&mut self, _server: &ServerHandle) {
        self.is_serving = true;
        if let Some(Err(error)) = self.upgrade.as_ref().map(Trigger::begin) {
            log::error!(signal = "SIGUSR2", errno = errno_field(&error); "cannot receive SIGUSR2: {error}");
        }
        // The predecessor has left it.
        if let Some(path) = self.path() {
            path.reclaim();
        }
    }

    fn enter_child(&mut self) {
        if let Some((ControlSocket { path, socket }, _)) = self.control.take() {
            // The parent removes it.
            std::mem::forget(path);
            drop(socket);
        }
        (self.session, self.committed) = (None, None);
        self.refused.clear();
        // The signal handler of the parent stays, and has no effect here.
        std::mem::forget(self.upgrade.take());
    }

    fn stopped(&mut self, server: &ServerHandle) {
        self.is_serving = false;
        self.finish();
        self.roll_back(&io::Error::other("the server stops"), server);
        for (peer, line) in std::mem::take(&mut self.refused) {
            // It fails if the successor has gone.
            let _ = shortage::retry(|| protocol::send(&peer, &line, &[]));
        }
    }
}

/// Returns a process id for a log line.
fn shown(pid: Option<i32>) -> String {
    pid.map_or("?".to_owned(), |pid| pid.to_string())
}

#[cfg(test)]
mod tests {
    use sock::{AF_UNIX, MSG_DONTWAIT, SOCK_STREAM, socketpair};

    use super::*;

    const LIMITS: Limits =
        Limits { timeout: Duration::MAX, drain: Duration::MAX, idle_grace: Duration::ZERO };

    fn offering(socket: Socket) -> Offering {
        let mut offering = Offering::new(
            Some((ControlSocket { path: None, socket: Arc::new(socket) }, LIMITS)),
            None,
            false,
        );
        offering.is_serving = true;
        offering
    }

    /// As with `EMFILE`, each accept(2) fails and the socket stays readable.
    #[test]
    fn nothing_is_accepted_for_some_time_after_an_error() {
        let server = ServerHandle::with_defaults().unwrap();
        // It does not listen.
        let mut offering = offering(Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap());
        let mut sockets = Vec::new();
        assert_eq!(offering.waits_for(&mut sockets), None);
        assert_eq!(sockets.len(), 1);
        let begin = Instant::now();
        assert!(matches!(offering.run(&server), Next::Continue));
        sockets.clear();
        let due = offering.waits_for(&mut sockets).expect("it accepts later");
        assert!(sockets.is_empty() && due >= begin + ACCEPT_PAUSE);
    }

    /// The system has no memory for the message, which a buffer that is full stands for.
    #[test]
    fn a_refusal_is_sent_before_the_connection_is_closed() {
        let server = ServerHandle::with_defaults().unwrap();
        let (ours, theirs) = socketpair().unwrap();
        let (unused, _) = socketpair().unwrap();
        let mut offering = offering(unused);
        let mut filled = 0;
        while let Ok(sent) = ours.send_with_flags(&[b'x'; 4096], MSG_DONTWAIT) {
            filled += sent;
        }
        offering.session = Some(Session {
            peer: Arc::new(ours),
            reader: LineReader::default(),
            has_offer: true,
            until: None,
            limits: LIMITS,
            pid: None,
            is_child: false,
        });
        server.set_offers_listeners(true);
        offering.roll_back(&io::Error::other("late"), &server);
        assert!(offering.waits_for(&mut Vec::new()).is_some() && server.leaves_listeners());
        while filled > 0 {
            filled -= theirs.recv(filled).unwrap().len();
        }
        offering.run(&server);
        assert!(offering.refused.is_empty() && !server.leaves_listeners());
        assert_eq!(theirs.recv_with_flags(100, MSG_DONTWAIT).unwrap(), b"refused late\n");
    }
}
