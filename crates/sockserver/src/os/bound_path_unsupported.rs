//! Stands in for `bound_path.rs` on systems where servers have no paths. No value of [`DirEntry`]
//! and of [`BoundPath`] exists.

use std::io;
use std::path::Path;

use sock::{Address, SocketKind};

pub(crate) enum BoundPath {}

pub(crate) enum DirEntry {}

pub(crate) struct DirLock;

pub(crate) struct FileId;

impl DirLock {
    pub(crate) fn wait(_: Option<&DirEntry>) -> io::Result<DirLock> {
        Ok(DirLock)
    }

    pub(crate) fn is_held(&self) -> bool {
        true
    }
}

impl DirEntry {
    pub(crate) fn of(_: &Address) -> io::Result<Option<DirEntry>> {
        Ok(None)
    }

    pub(crate) fn bound(self, _: Option<u32>) -> io::Result<Option<BoundPath>> {
        match self {}
    }

    pub(crate) fn stale(&self, _: SocketKind) -> io::Result<Option<FileId>> {
        match *self {}
    }

    pub(crate) fn remove(&self, _: FileId) -> io::Result<bool> {
        match *self {}
    }

    pub(crate) fn path(&self) -> &Path {
        match *self {}
    }
}
