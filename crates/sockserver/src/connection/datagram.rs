//! A datagram on its way to its handler.

use std::sync::Arc;

use sock::Socket;

/// A received datagram. It is small, because every request has room for one.
pub(crate) struct DatagramBuf(Box<Received>);

struct Received {
    data: Box<[u8]>,
    is_truncated: bool,
    /// The server's socket, through which the datagram came.
    socket: Arc<Socket>,
}

impl DatagramBuf {
    /// Copies the first `max_packet_size` bytes of what was received.
    pub(crate) fn new(received: &[u8], max_packet_size: usize, socket: &Arc<Socket>) -> DatagramBuf {
        DatagramBuf(Box::new(Received {
            data: received[..received.len().min(max_packet_size)].into(),
            is_truncated: received.len() > max_packet_size,
            socket: Arc::clone(socket),
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
}
