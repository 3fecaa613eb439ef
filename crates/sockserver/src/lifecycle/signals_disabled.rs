//! Stands in for `signals.rs` where signals are not handled: on other systems than Unix, and
//! without the feature `signals`. No value of [`Signals`] exists.

use std::io;
use std::time::Duration;

use sock::Poll;

use crate::lifecycle::handle::ServerHandle;

pub(crate) enum Signals {}

/// See `signals.rs`. No value exists.
#[derive(Clone, Copy)]
pub(crate) enum WorkerOrder {
    Reload,
    Add,
    Remove,
}

pub(crate) enum UnblockedSignals {}

impl Signals {
    pub(crate) fn catch(_: Option<Duration>, _: bool) -> io::Result<Signals> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn next_order(&self) -> Option<WorkerOrder> {
        match *self {}
    }

    pub(crate) fn manages_workers(&self) -> bool {
        match *self {}
    }

    pub(crate) fn limit(&self) -> Option<Duration> {
        match *self {}
    }

    pub(crate) fn begin(&self) -> io::Result<UnblockedSignals> {
        match *self {}
    }

    pub(crate) fn unread(&self) -> Option<u8> {
        match *self {}
    }

    pub(crate) fn watch(&self, _: &ServerHandle) -> io::Result<()> {
        match *self {}
    }

    #[cfg(unix)]
    pub(crate) fn enter_worker(&self) -> io::Result<std::sync::Arc<sock::Socket>> {
        match *self {}
    }

    pub(crate) fn poll(&self) -> Poll<'_> {
        match *self {}
    }

    pub(crate) fn read_signals(&self) {
        match *self {}
    }

    pub(crate) fn requested_drain(&self) -> Option<Duration> {
        match *self {}
    }

    pub(crate) fn second_signal(&self) -> bool {
        match *self {}
    }
}

#[cfg(unix)]
pub(crate) fn is_sigterm(_: &[u8]) -> bool {
    false
}
