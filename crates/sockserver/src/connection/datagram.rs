//! A datagram on its way to its handler.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use sock::{AF_INET6, Address, Socket};

use crate::os::batch::{self, PacketInfo};

/// A received datagram. It is small, because every request has room for one.
pub(crate) struct DatagramBuf(Box<Received>);

struct Received {
    data: Box<[u8]>,
    is_truncated: bool,
    /// The server's socket, through which the datagram came.
    socket: Arc<Socket>,
    /// The address that it was sent to, if the server listens on all addresses.
    info: Option<PacketInfo>,
}

impl DatagramBuf {
    /// Copies the first `max_packet_size` bytes of what was received.
    pub(crate) fn new(
        received: &[u8],
        max_packet_size: usize,
        socket: &Arc<Socket>,
        info: Option<PacketInfo>,
    ) -> DatagramBuf {
        DatagramBuf(Box::new(Received {
            data: received[..received.len().min(max_packet_size)].into(),
            is_truncated: received.len() > max_packet_size,
            socket: Arc::clone(socket),
            info,
        }))
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.0.data
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.0.is_truncated
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.0.socket
    }

    pub(crate) fn info(&self) -> Option<&PacketInfo> {
        self.0.info.as_ref()
    }
}

/// Returns the address that a datagram was sent to, with the port of its socket.
pub(crate) fn destination_address(socket: &Socket, info: Option<&PacketInfo>) -> io::Result<Address> {
    let bound = socket.getsockname()?;
    let (Some((ip, interface)), Some(port)) = (info.map(batch::destination), bound.port()) else {
        return Ok(bound);
    };
    let ip = match ip {
        // As the client's address is on a dual-stack socket.
        IpAddr::V4(ip) if socket.family() == AF_INET6 => IpAddr::V6(ip.to_ipv6_mapped()),
        ip => ip,
    };
    Ok(Address::from(match ip {
        IpAddr::V6(ip) if has_scope(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, interface)),
        ip => SocketAddr::new(ip, port),
    }))
}

/// Returns whether an address is unique on one interface only: a link-local address, or a multicast
/// group of the interface or the link (RFC 4291).
fn has_scope(ip: Ipv6Addr) -> bool {
    ip.is_unicast_link_local() || (ip.is_multicast() && matches!(ip.segments()[0] & 0xf, 1 | 2))
}
