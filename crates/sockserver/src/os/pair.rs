//! Connected pairs for the messages between threads and processes of a server.

use std::io;

use sock::Socket;

/// Creates a connected pair that has no timeout. `sock::socketpair` applies the program's default
/// timeout: a thread that waits for a message would end after it, and a call with `MSG_DONTWAIT`
/// would wait.
pub(crate) fn pair() -> io::Result<(Socket, Socket)> {
    let (one, other) = sock::socketpair()?;
    one.settimeout(None)?;
    other.settimeout(None)?;
    Ok((one, other))
}
