//! Stands for `bound_path` on systems whose servers have no paths.

use std::io;

use sock::Address;

/// Nothing: servers have no paths here.
pub(crate) struct BoundPath;

/// Nothing either.
pub(crate) struct DirEntry;

/// Nor this.
pub(crate) struct DirLock;

impl Turn {
    pub(crate) fn wait(_: Option<&Place>) -> io::Result<Turn> {
        Ok(Turn)
    }
}

impl Place {
    pub(crate) fn of(_: &Address) -> io::Result<Option<Place>> {
        Ok(None)
    }

    pub(crate) fn bound(self, _: Option<u32>) -> io::Result<Option<BoundPath>> {
        Ok(None)
    }
}
