//! Wakes a thread that waits in poll(2), with a byte through a socket pair.

use std::io;

use sock::{Poll, Socket};

use crate::os::pair::pair;
use crate::os::{process, shortage};

/// Wakes a thread that waits for [`Waker::poll`] in poll(2).
pub(crate) struct Waker {
    receiver: Socket,
    sender: Socket,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        let (receiver, sender) = pair()?;
        receiver.setblocking(false)?;
        sender.setblocking(false)?;
        Ok(Waker { receiver, sender })
    }

    /// Separates the waker from that of the parent process, after a fork.
    pub(crate) fn renew(&self) -> io::Result<()> {
        process::renew_pair(&self.receiver, &self.sender)
    }

    /// Wakes the thread, or makes its next wait return at once.
    pub(crate) fn wake(&self) {
        // Another error while both ends are open is a full buffer, and then wake-ups are pending.
        let _ = shortage::retry(|| self.sender.send(b"!"));
    }

    /// Returns the entry for poll(2).
    pub(crate) fn poll(&self) -> Poll<'_> {
        Poll::new(&self.receiver, sock::POLLIN)
    }

    /// Discards the pending wake-ups.
    pub(crate) fn drain(&self) {
        let mut bytes = [0; 64];
        while matches!(self.receiver.recv_into(&mut bytes), Ok(64)) {}
    }
}
