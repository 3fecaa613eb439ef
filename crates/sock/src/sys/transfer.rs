//! send(2) and recv(2), which a server makes for every request.
//!
//! On Linux without the C library's wrappers: those are points where POSIX allows a
//! thread to be cancelled, and in a process with threads pay for that with two
//! atomic exchanges a call (pthreads(7), "Cancellation points"). Rust cancels no thread.

use std::io;

use socket2::Socket;

#[cfg(target_os = "linux")]
use rustix::net::{RecvFlags, SendFlags};

#[cfg(target_os = "linux")]
#[inline]
pub(crate) fn send(socket: &Socket, data: &[u8], flags: i32) -> io::Result<usize> {
    Ok(rustix::net::send(socket, data, SendFlags::from_bits_retain(flags as u32))?)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn send(socket: &Socket, data: &[u8], flags: i32) -> io::Result<usize> {
    socket.send_with_flags(data, flags)
}

/// The count may be more than the buffer holds, where the flags ask for that.
#[cfg(target_os = "linux")]
#[inline]
pub(crate) fn recv(socket: &Socket, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    let (_, received) = rustix::net::recv(socket, buffer, RecvFlags::from_bits_retain(flags as u32))?;
    Ok(received)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn recv(socket: &Socket, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    socket.recv_with_flags(super::uninit(buffer), flags)
}
