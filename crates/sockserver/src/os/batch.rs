//! Datagrams with one system call for several, or with the address that each was sent to.

use std::io::{self, IoSlice};
use std::net::IpAddr;

use sock::{Address, Ancillary, MSG_DONTWAIT, MsgFlags, Socket, errno, errno_name};

pub(crate) use sock::{PacketInfo, RecvBatch};

/// Makes room for `count` datagrams of `size` bytes, and for the addresses that they are sent to.
/// `None` for a single datagram without that.
pub(crate) fn new(count: usize, size: usize, packet_info: bool) -> io::Result<Option<RecvBatch>> {
    match (packet_info, count) {
        (true, _) => RecvBatch::with_packet_info(count, size).map(Some),
        (false, 2..) => RecvBatch::new(count, size).map(Some),
        (false, _) => Ok(None),
    }
}

/// Receives datagrams in place of the last ones, without waiting.
pub(crate) fn receive(socket: &Socket, batch: &mut RecvBatch) -> io::Result<()> {
    socket.recvmmsg_with_flags(batch, MSG_DONTWAIT).map(drop)
}

/// Returns a datagram, its sender, and the address that it was sent to, if that was requested.
pub(crate) fn get(batch: &RecvBatch, index: usize) -> Option<(&[u8], Address, Option<PacketInfo>)> {
    batch.get(index).map(|datagram| (datagram.data(), datagram.address(), datagram.packet_info()))
}

/// Requests the address that each datagram is sent to. Returns whether the system has it.
pub(crate) fn request_packet_info(socket: &Socket) -> io::Result<bool> {
    socket.set_recv_packet_info(true).map(|()| true)
}

/// Returns the address that a datagram was sent to, and the index of the interface.
pub(crate) fn destination(info: &PacketInfo) -> (IpAddr, u32) {
    (info.destination, info.interface)
}

/// Sends one datagram, from the address that the datagram of `info` was sent to.
pub(crate) fn send_from(
    socket: &Socket,
    data: &[u8],
    address: &Address,
    info: Option<&PacketInfo>,
) -> io::Result<usize> {
    if let Some(from) = info.and_then(PacketInfo::for_reply) {
        let from = [Ancillary::pktinfo(from)];
        match socket.sendmsg_to(&[IoSlice::new(data)], &from, MsgFlags::NONE, address) {
            Err(error) if is_source_refused(&error) => {}
            sent => return sent,
        }
    }
    socket.sendto(data, address)
}

/// Returns whether a source address is not accepted: it was a broadcast address, which not every
/// system marks, or has been removed from this host. The system then chooses another. Linux has no
/// route from such an address.
pub(crate) fn is_source_refused(error: &io::Error) -> bool {
    let name = errno(error).and_then(errno_name);
    matches!(name, Some("EINVAL" | "EADDRNOTAVAIL" | "ENETUNREACH" | "EHOSTUNREACH"))
}

/// Sends answers, each from the address that its datagram was sent to. Returns how many were sent,
/// and the error of the next one.
pub(crate) fn send(
    socket: &Socket,
    answers: &[(Vec<u8>, Address, Option<PacketInfo>)],
) -> (usize, Option<io::Error>) {
    match socket.sendmmsg_with_packet_info(answers) {
        Ok(sent) => (sent.count, sent.error),
        Err(error) => (0, Some(error)),
    }
}

/// Returns the source for an answer.
pub(crate) fn for_reply(info: &PacketInfo) -> Option<PacketInfo> {
    info.for_reply()
}
