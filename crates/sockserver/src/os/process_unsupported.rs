//! Stands in for `process.rs` on systems without fork(2). No process is ever forked there.

use std::io;
use std::sync::atomic::AtomicU64;

/// The process id of a child.
pub(crate) type Pid = i32;

pub(crate) fn renew_pair(_: &sock::Socket, _: &sock::Socket) -> io::Result<()> {
    Ok(())
}

pub(crate) fn keep_exit_statuses() -> io::Result<()> {
    Ok(())
}

pub(crate) fn kill(_: Pid) {}

pub(crate) fn is_alive(_: u64) -> bool {
    false
}

pub(crate) fn preallocate_fd_table(_: usize) {}

/// Memory that processes share. No value exists.
pub(crate) enum SharedWords {}

impl SharedWords {
    pub(crate) fn new(_: usize) -> io::Result<SharedWords> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn renew(&self) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn len(&self) -> usize {
        match *self {}
    }

    pub(crate) fn get(&self, _: usize) -> &AtomicU64 {
        match *self {}
    }
}
