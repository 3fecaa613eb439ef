//! Sockets from systemd, and messages to it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use rustix::io::{FdFlags, fcntl_setfd};
use sd_notify::NotifyState;
use sock::{AF_UNIX, SOCK_DGRAM, Socket, errno};

use crate::lifecycle::duty::{Duty, Next};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::release::Handing;
use crate::limits::log_limit::{LogKind, log_limited};
use crate::os::exec;
use crate::os::log::errno_field;

/// Sends the state of the server to the service manager, and the heartbeats of its watchdog.
pub(crate) struct Systemd {
    /// Half of `WATCHDOG_USEC`, if this process has to send heartbeats.
    heartbeat: Option<Duration>,
    next_heartbeat: Instant,
    /// The last state of a handover that was sent.
    sent: Handing,
    /// The last state for which the service manager had no room, and when it is sent again.
    unsent: Option<(String, Instant)>,
}

/// The time until a message is sent again for which the service manager had no room.
const RETRY: Duration = Duration::from_millis(100);

impl Systemd {
    pub(crate) fn new() -> Systemd {
        let heartbeat = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        Systemd {
            heartbeat: heartbeat.map(|limit| limit / 2),
            next_heartbeat: Instant::now(),
            sent: Handing::Nothing,
            unsent: None,
        }
    }
}

/// Sends a message. Returns false if it has to be sent again.
fn send(message: &str) -> bool {
    // Without it there is no service manager.
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return true };
    match send_to(&path, message.as_bytes()) {
        Ok(()) => true,
        Err(error) => {
            let kind = LogKind::Other(error.kind(), errno(&error));
            log_limited!(warn, kind, errno = errno_field(&error); "cannot notify the service manager: {error}");
            error.kind() != io::ErrorKind::WouldBlock
        }
    }
}

/// Sends a datagram without waiting. `sd_notify::notify` waits while the queue of the service manager is
/// full.
fn send_to(path: &OsStr, message: &[u8]) -> io::Result<()> {
    let socket = Socket::new(AF_UNIX, SOCK_DGRAM, 0)?;
    socket.setblocking(false)?;
    // sd_notify(3): an abstract name begins with `@`.
    let name = match path.as_bytes() {
        [b'@', rest @ ..] => OsString::from_vec([b"\0", rest].concat()),
        _ => path.to_owned(),
    };
    socket.connect(Path::new(&name))?;
    socket.send(message).map(drop)
}

/// Returns the message that reports these states.
fn message_of(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}

impl Systemd {
    /// Sends a state in place of one that could not be sent.
    fn send_state(&mut self, states: &[NotifyState<'_>]) {
        let message = message_of(states);
        self.unsent = (!send(&message)).then(|| (message, Instant::now() + RETRY));
    }

    fn send_again(&mut self) {
        if self.unsent.as_ref().is_some_and(|(_, due)| Instant::now() >= *due) {
            let message = self.unsent.take().map(|(message, _)| message).unwrap_or_default();
            if !send(&message) {
                self.unsent = Some((message, Instant::now() + RETRY));
            }
        }
    }
}

impl Duty for Systemd {
    fn waits_for(&self, _: &mut Vec<Arc<Socket>>) -> Option<Instant> {
        let heartbeat = self.heartbeat.map(|_| self.next_heartbeat);
        heartbeat.into_iter().chain(self.unsent.as_ref().map(|(_, due)| *due)).min()
    }

    fn run(&mut self, server: &ServerHandle) -> Next {
        if let Some(heartbeat) = self.heartbeat {
            if Instant::now() >= self.next_heartbeat {
                let is_sent = send(&message_of(&[NotifyState::Watchdog]));
                self.next_heartbeat =
                    Instant::now() + if is_sent { heartbeat } else { heartbeat.min(RETRY) };
            }
        }
        self.send_again();
        let handing = server.handing();
        if handing != std::mem::replace(&mut self.sent, handing) {
            match handing {
                Handing::InProgress => match NotifyState::monotonic_usec_now() {
                    Ok(now) => self.send_state(&[NotifyState::Reloading, now]),
                    Err(_) => self.send_state(&[NotifyState::Reloading]),
                },
                Handing::Nothing => self.send_state(&[NotifyState::Ready]),
                Handing::Done(pid) => {
                    self.heartbeat = None;
                    self.send_state(&[NotifyState::MainPid(pid), NotifyState::Ready]);
                }
            }
        }
        Next::Continue
    }

    fn serving(&mut self, _: &ServerHandle) {
        self.send_state(&[NotifyState::Ready]);
    }

    fn stopped(&mut self, server: &ServerHandle) {
        // A successor is the service now.
        if !matches!(server.handing(), Handing::Done(_)) {
            self.send_state(&[NotifyState::Stopping]);
        }
    }
}

/// Takes the sockets that systemd has passed to this process, in their order. Those that this process has
/// inherited from its predecessor, by the same protocol, are not among them.
///
/// # Errors
///
/// Returns an error of kind `InvalidInput` if one is no listener and no socket for datagrams of IP
/// or Unix.
pub(crate) fn activated() -> io::Result<Vec<Socket>> {
    if exec::is_inheritor() {
        return Ok(Vec::new());
    }
    let mut passed = ListenFd::from_env();
    let sockets = (0..passed.len()).map(|index| {
        let fd = take(&mut passed, index)?;
        // It is inherited without.
        fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        Ok(Socket::from_fd(fd, None, None, None)?)
    });
    sockets.collect()
}

/// Takes a socket of any kind. `listenfd` checks the kind.
fn take(passed: &mut ListenFd, index: usize) -> io::Result<OwnedFd> {
    if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
        return Ok(listener.into());
    }
    if let Ok(Some(listener)) = passed.take_unix_listener(index) {
        return Ok(listener.into());
    }
    if let Ok(Some(socket)) = passed.take_udp_socket(index) {
        return Ok(socket.into());
    }
    match passed.take_unix_datagram(index)? {
        Some(socket) => Ok(socket.into()),
        None => Err(io::ErrorKind::InvalidInput.into()),
    }
}
