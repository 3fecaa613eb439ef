//! Stands in for `bound_path.rs` on systems where servers have no paths. No value of [`DirEntry`]
//! and of [`BoundPath`] exists.

use std::io;
use std::path::Path;

use sock::Address;

pub(crate) enum BoundPath {}

impl BoundPath {
    pub(crate) fn take_over(&self) {
        match *self {}
    }

    pub(crate) fn reclaim(&self) {
        match *self {}
    }

    pub(crate) fn hand_over(&self) {
        match *self {}
    }

    pub(crate) fn remove_in_signal_handler(&self) {
        match *self {}
    }
}

pub(crate) enum DirEntry {}

pub(crate) enum Stale {}

impl DirEntry {
    pub(crate) fn of(_: &Address) -> io::Result<Option<DirEntry>> {
        Ok(None)
    }

    pub(crate) fn bound(self, _: Option<u32>) -> io::Result<Option<BoundPath>> {
        match self {}
    }

    pub(crate) fn stale(&self) -> io::Result<Option<Stale>> {
        match *self {}
    }

    pub(crate) fn remove_stale(&self) -> io::Result<bool> {
        match *self {}
    }

    pub(crate) fn path(&self) -> &Path {
        match *self {}
    }
}
