//! SIGUSR2, which starts a new version of the program.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use signal_hook::SigId;
use signal_hook::consts::SIGUSR2;
use sock::{MSG_DONTWAIT, Socket};

use crate::lifecycle::handover::offering::Limits;
use crate::os::pair::pair;
use crate::os::process::{self, SignalOwner};

/// Receives the signal, and knows what to start.
pub(crate) struct Trigger {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) limits: Limits,
    /// Receives one byte for each signal.
    receiver: Arc<Socket>,
    sender: Arc<Socket>,
    owner: Arc<SignalOwner>,
    id: SigId,
}

impl Trigger {
    /// Catches the signal until the returned value is dropped.
    pub(crate) fn catch(program: PathBuf, arguments: Vec<OsString>, limits: Limits) -> io::Result<Trigger> {
        let (receiver, sender) = pair()?;
        let (sender, owner) = (Arc::new(sender), Arc::new(SignalOwner::new()));
        let id = process::on_signal(SIGUSR2, Arc::clone(&sender), Arc::clone(&owner))?;
        Ok(Trigger { program, arguments, limits, receiver: Arc::new(receiver), sender, owner, id })
    }

    /// Makes this process receive the signal, which may be a child of the one that has made the
    /// server.
    pub(crate) fn begin(&self) -> io::Result<()> {
        if !self.owner.is_this_process() {
            process::renew_pair(&self.receiver, &self.sender)?;
            self.owner.take_over(&self.sender);
        }
        Ok(())
    }

    pub(crate) fn receiver(&self) -> Arc<Socket> {
        Arc::clone(&self.receiver)
    }

    /// Returns whether a signal has arrived. Several that wait count as one.
    pub(crate) fn is_due(&self) -> bool {
        self.receiver.recv_with_flags(64, MSG_DONTWAIT).is_ok_and(|bytes| !bytes.is_empty())
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.id);
    }
}
