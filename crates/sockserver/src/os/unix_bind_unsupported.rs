//! Stands in for `unix_bind.rs` on systems where a path has no mode.

use std::io;

use sock::{Address, Socket};

/// The mode that the next bind in this thread gives a path. Ignored here.
#[derive(Clone, Copy)]
pub(crate) struct Mode;

impl Mode {
    pub(crate) fn of(_: &Socket, _: u32) -> Mode {
        Mode
    }
}

pub(crate) fn with_mode<T>(_: Option<Mode>, run: impl FnOnce() -> T) -> T {
    run()
}

pub(crate) fn bind(socket: &Socket, address: &Address) -> io::Result<()> {
    socket.bind(address)
}
