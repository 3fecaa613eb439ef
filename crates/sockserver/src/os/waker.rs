//! The wake-up: one byte through a socket pair ends a wait in poll(2) at once.

use std::io;

use sock::{Poll, Socket, socketpair};

/// Wakes a loop that waits for [`Waker::poll`] among other things.
pub(crate) struct Waker {
    ours: Socket,
    theirs: Socket,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        let (ours, theirs) = socketpair()?;
        ours.setblocking(false)?;
        theirs.setblocking(false)?;
        Ok(Waker { ours, theirs })
    }

    /// Wakes the loop, now or when it waits next.
    pub(crate) fn wake(&self) {
        // The one error there is, a full buffer, means that wake-ups are waiting.
        let _ = self.theirs.send(b"!");
    }

    /// What the loop waits for beside its listener.
    pub(crate) fn poll(&self) -> Poll<'_> {
        Poll::new(&self.ours, sock::POLLIN)
    }

    /// Takes the wake-ups that have come.
    pub(crate) fn drain(&self) {
        let mut bytes = [0; 64];
        while matches!(self.ours.recv_into(&mut bytes), Ok(64)) {}
    }
}
