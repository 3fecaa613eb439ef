//! Stands for `bound_path` on systems whose servers have no paths.

use std::io;

use sock::Address;

/// Nothing: servers have no paths here.
pub(crate) struct BoundPath;

/// Nothing either.
pub(crate) struct DirEntry;

/// Nor this.
pub(crate) struct DirLock;

impl DirLock {
    pub(crate) fn wait(_: Option<&DirEntry>) -> io::Result<DirLock> {
        Ok(DirLock)
    }
}

impl DirEntry {
    pub(crate) fn of(_: &Address) -> io::Result<Option<DirEntry>> {
        Ok(None)
    }

    pub(crate) fn bound(self, _: Option<u32>) -> io::Result<Option<BoundPath>> {
        Ok(None)
    }
}
