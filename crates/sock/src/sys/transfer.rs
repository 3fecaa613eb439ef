//! The calls that a server makes for every request.
//!
//! Linux uses system calls without the C library's wrappers. The wrappers are cancellation points,
//! which cost two atomic exchanges per call in a multi-threaded process (pthreads(7), "Cancellation
//! points"). Rust does not cancel threads.

use std::io;
use std::net::{Shutdown, SocketAddrV4};

use socket2::{SockAddr, Socket};

#[cfg(target_os = "linux")]
use rustix::net::{RecvFlags, SendFlags};

use super::SEND_FLAGS;

/// Without the wrapper, because a forked child would otherwise map one more page.
#[inline]
pub(crate) fn shutdown(socket: &Socket, how: Shutdown) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(socket, how)?)
    }
    #[cfg(not(target_os = "linux"))]
    socket.shutdown(how)
}

/// Returns the flags of a send for the system: those of the caller and [`SEND_FLAGS`].
///
/// Refuses `MSG_ZEROCOPY` (linux/socket.h). With it the kernel reads the data after the call has
/// returned, when the caller may have freed or changed it.
#[inline]
pub(super) fn send_flags(flags: i32) -> io::Result<i32> {
    const MSG_ZEROCOPY: i32 = 0x400_0000;
    if cfg!(target_os = "linux") && flags & MSG_ZEROCOPY != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "MSG_ZEROCOPY is not supported, because the kernel reads the data after the call returns",
        ));
    }
    Ok(flags | SEND_FLAGS)
}

#[inline]
pub(crate) fn send(socket: &Socket, data: &[u8], flags: i32) -> io::Result<usize> {
    let flags = send_flags(flags)?;
    #[cfg(target_os = "linux")]
    return Ok(rustix::net::send(socket, data, SendFlags::from_bits_retain(flags as u32))?);
    #[cfg(not(target_os = "linux"))]
    socket.send_with_flags(data, flags)
}

/// Receives into `buffer`. With MSG_TRUNC the count may exceed the buffer.
#[inline]
pub(crate) fn recv(socket: &Socket, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::net::recv(socket, buffer, RecvFlags::from_bits_retain(flags as u32))?.1);
    #[cfg(not(target_os = "linux"))]
    {
        // SAFETY: recv(2) writes no uninitialised bytes.
        socket.recv_with_flags(unsafe { super::uninit(buffer) }, flags)
    }
}

/// Calls sendto(2) with an address of any family.
pub(crate) fn sendto(socket: &Socket, data: &[u8], flags: i32, address: &SockAddr) -> io::Result<usize> {
    socket.send_to_with_flags(data, address, send_flags(flags)?)
}

/// Calls recvfrom(2).
pub(crate) fn recvfrom(socket: &Socket, buffer: &mut [u8], flags: i32) -> io::Result<(usize, SockAddr)> {
    // SAFETY: recvfrom(2) writes no uninitialised bytes.
    socket.recv_from_with_flags(unsafe { super::uninit(buffer) }, flags)
}

/// Calls sendto(2) with an IPv4 address of 16 bytes. An address of any family has eight times as
/// many, which would be cleared and copied.
#[inline]
pub(crate) fn sendto_inet(
    socket: &Socket,
    data: &[u8],
    flags: i32,
    address: SocketAddrV4,
) -> io::Result<usize> {
    let flags = send_flags(flags)?;
    #[cfg(target_os = "linux")]
    return Ok(rustix::net::sendto(socket, data, SendFlags::from_bits_retain(flags as u32), &address)?);
    #[cfg(not(target_os = "linux"))]
    socket.send_to_with_flags(data, &address.into(), flags)
}

/// Calls recvfrom(2) on an IPv4 socket. A connected socket may return no address.
#[inline]
pub(crate) fn recvfrom_inet(
    socket: &Socket,
    buffer: &mut [u8],
    flags: i32,
) -> io::Result<(usize, Option<SocketAddrV4>)> {
    #[cfg(target_os = "linux")]
    {
        let flags = RecvFlags::from_bits_retain(flags as u32);
        let (_, received, address) = rustix::net::recvfrom(socket, buffer, flags)?;
        Ok((received, address.and_then(|address| address.try_into().ok())))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let (received, address) = recvfrom(socket, buffer, flags)?;
        Ok((received, address.as_socket_ipv4()))
    }
}
