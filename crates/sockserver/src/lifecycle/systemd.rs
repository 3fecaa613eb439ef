//! Sockets from systemd, and messages to it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use rustix::io::{FdFlags, fcntl_setfd};
use sd_notify::NotifyState;
use sock::{Socket, errno};

use crate::lifecycle::duty::{Duty, Next};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::release::Handing;
use crate::limits::log_limit::{LogKind, log_limited};
use crate::os::log::errno_field;

/// Sends the state of the server to the service manager, and the heartbeats of its watchdog.
pub(crate) struct Systemd {
    /// Half of `WATCHDOG_USEC`, if this process has to send heartbeats.
    heartbeat: Option<Duration>,
    next_heartbeat: Instant,
    /// The last state of a handover that was sent.
    sent: Handing,
}

impl Systemd {
    pub(crate) fn new() -> Systemd {
        let heartbeat = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        Systemd {
            heartbeat: heartbeat.map(|limit| limit / 2),
            next_heartbeat: Instant::now(),
            sent: Handing::Nothing,
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    // Without `NOTIFY_SOCKET` it has no effect.
    if let Err(error) = sd_notify::notify(states) {
        let kind = LogKind::Other(error.kind(), errno(&error));
        log_limited!(warn, kind, errno = errno_field(&error); "cannot notify the service manager: {error}");
    }
}

impl Duty for Systemd {
    fn waits_for(&self, _: &mut Vec<Arc<Socket>>) -> Option<Instant> {
        self.heartbeat.map(|_| self.next_heartbeat)
    }

    fn run(&mut self, server: &ServerHandle) -> Next {
        if let Some(heartbeat) = self.heartbeat {
            if Instant::now() >= self.next_heartbeat {
                self.next_heartbeat = Instant::now() + heartbeat;
                send(&[NotifyState::Watchdog]);
            }
        }
        let handing = server.handing();
        if handing != std::mem::replace(&mut self.sent, handing) {
            match handing {
                Handing::InProgress => match NotifyState::monotonic_usec_now() {
                    Ok(now) => send(&[NotifyState::Reloading, now]),
                    Err(_) => send(&[NotifyState::Reloading]),
                },
                Handing::Nothing => send(&[NotifyState::Ready]),
                Handing::Done(pid) => {
                    self.heartbeat = None;
                    send(&[NotifyState::MainPid(pid), NotifyState::Ready]);
                }
            }
        }
        Next::Continue
    }

    fn serving(&mut self, _: &ServerHandle) {
        send(&[NotifyState::Ready]);
    }

    fn stopped(&mut self, server: &ServerHandle) {
        // A successor is the service now.
        if !matches!(server.handing(), Handing::Done(_)) {
            send(&[NotifyState::Stopping]);
        }
    }
}

/// Takes the sockets that systemd has passed to this process, in their order.
///
/// # Errors
///
/// Returns an error of kind `InvalidInput` if one is no listener and no socket for datagrams of IP
/// or Unix.
pub(crate) fn activated() -> io::Result<Vec<Socket>> {
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
