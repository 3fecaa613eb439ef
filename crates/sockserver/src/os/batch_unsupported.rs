//! Stands in for `batch.rs` on systems without recvmmsg(2) and sendmmsg(2).

use std::io;
use std::net::IpAddr;

use sock::{Address, Socket};

/// Room for several datagrams. No value exists.
pub(crate) enum RecvBatch {}

impl RecvBatch {
    pub(crate) fn len(&self) -> usize {
        match *self {}
    }
}

/// The address that a datagram was sent to. No value exists.
#[derive(Clone, Copy)]
pub(crate) enum PacketInfo {}

/// Datagrams are received one at a time.
pub(crate) fn new(_count: usize, _size: usize, _packet_info: bool) -> io::Result<Option<RecvBatch>> {
    Ok(None)
}

pub(crate) fn receive(_socket: &Socket, batch: &mut RecvBatch) -> io::Result<()> {
    match *batch {}
}

pub(crate) fn get(batch: &RecvBatch, _index: usize) -> Option<(&[u8], Address, Option<PacketInfo>)> {
    match *batch {}
}

/// The address is not known.
pub(crate) fn request_packet_info(_socket: &Socket) -> io::Result<bool> {
    Ok(false)
}

pub(crate) fn destination(info: &PacketInfo) -> (IpAddr, u32) {
    match *info {}
}

pub(crate) fn send_from(
    socket: &Socket,
    data: &[u8],
    address: &Address,
    _info: Option<&PacketInfo>,
) -> io::Result<usize> {
    socket.sendto(data, address)
}

pub(crate) fn is_source_refused(_error: &io::Error) -> bool {
    false
}

/// Sends answers one at a time. Returns how many were sent, and the error of the next one.
pub(crate) fn send(
    socket: &Socket,
    answers: &[(Vec<u8>, Address, Option<PacketInfo>)],
) -> (usize, Option<io::Error>) {
    for (count, (answer, client_address, _)) in answers.iter().enumerate() {
        if let Err(error) = socket.sendto(answer, client_address) {
            return (count, Some(error));
        }
    }
    (answers.len(), None)
}

pub(crate) fn for_reply(info: &PacketInfo) -> Option<PacketInfo> {
    match *info {}
}
