//! Stands in for `signals.rs` where signals are not handled: on other systems than Unix, and
//! without the feature `signals`. No value of [`Signals`] exists.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sock::Poll;

use crate::lifecycle::handle::ServerHandle;
use crate::os::bound_path::BoundPath;

pub(crate) enum Signals {}

impl Signals {
    pub(crate) fn catch(_: Duration) -> io::Result<Signals> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn watch(&self, _: ServerHandle, _: Arc<Mutex<Vec<BoundPath>>>) -> io::Result<()> {
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
