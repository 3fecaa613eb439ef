//! Stands in for `trigger.rs` without the feature `signals`. No value of [`Trigger`] exists.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use sock::Socket;

use crate::lifecycle::handover::offering::Limits;

pub(crate) struct Trigger {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) limits: Limits,
    none: std::convert::Infallible,
}

impl Trigger {
    pub(crate) fn begin(&self) -> std::io::Result<()> {
        match self.none {}
    }

    pub(crate) fn receiver(&self) -> Arc<Socket> {
        match self.none {}
    }

    pub(crate) fn is_due(&self) -> bool {
        match self.none {}
    }
}
