//! The calls that a server makes for every request.
//!
//! On Linux without the C library's wrappers: those are points where POSIX allows a
//! thread to be cancelled, and in a process with threads pay for that with two
//! atomic exchanges a call (pthreads(7), "Cancellation points"). Rust cancels no thread.

use std::io;
use std::net::{Shutdown, SocketAddrV4};

use socket2::Socket;

#[cfg(target_os = "linux")]
use rustix::net::{RecvFlags, SendFlags};

/// Without the wrapper too: a forked child would have the page mapped for it alone.
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

#[inline]
pub(crate) fn send(socket: &Socket, data: &[u8], flags: i32) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::net::send(socket, data, SendFlags::from_bits_retain(flags as u32))?);
    #[cfg(not(target_os = "linux"))]
    socket.send_with_flags(data, flags)
}

/// The count may be more than the buffer holds, where the flags ask for that.
#[inline]
pub(crate) fn recv(socket: &Socket, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::net::recv(socket, buffer, RecvFlags::from_bits_retain(flags as u32))?.1);
    #[cfg(not(target_os = "linux"))]
    socket.recv_with_flags(super::uninit(buffer), flags)
}

/// sendto(2) to an IPv4 address, of which the system reads 16 bytes: an address of any
/// family takes eight times as many, to be cleared and copied.
#[inline]
pub(crate) fn sendto_inet(
    socket: &Socket,
    data: &[u8],
    flags: i32,
    address: SocketAddrV4,
) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::net::sendto(socket, data, SendFlags::from_bits_retain(flags as u32), &address)?);
    #[cfg(not(target_os = "linux"))]
    socket.send_to_with_flags(data, &address.into(), flags)
}

/// recvfrom(2) on a socket of IPv4; a connected one may tell no address.
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
        let (received, address) = socket.recv_from_with_flags(super::uninit(buffer), flags)?;
        Ok((received, address.as_socket_ipv4()))
    }
}
