//! The wire's end at one host: an `AF_PACKET` socket on the other half of the host's veth pair, or
//! the file of the host's TUN device.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};

use sock::{
    AF_PACKET, PACKET_IGNORE_OUTGOING, PACKET_STATISTICS, PacketAddress, SO_RCVBUF, SOCK_RAW, SOL_PACKET,
    SOL_SOCKET, Socket,
};

/// Bytes of the header of Ethernet.
const ETHERNET: usize = 14;
const ETH_P_ALL: u16 = 3;

/// What was read from an end.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
    header: usize,
}

impl Frame {
    /// The bytes from the header of IP on.
    pub(crate) fn packet(&self) -> &[u8] {
        &self.bytes[self.header..]
    }
}

#[derive(Debug)]
pub(crate) enum End {
    Packet(Socket),
    Tun(File),
}

impl End {
    /// Takes a device's packets, in the network namespace of the calling thread.
    pub(crate) fn of_device(index: u32) -> io::Result<End> {
        let sock = Socket::new(AF_PACKET, SOCK_RAW, 0)?;
        // The kernel limits it to net.core.rmem_max.
        sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 8 << 20)?;
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        sock.bind(PacketAddress::new(index, ETH_P_ALL))?;
        sock.setblocking(false)?;
        Ok(End::Packet(sock))
    }

    /// Returns the next packet, or `None` if there is none at the moment.
    pub(crate) fn receive(&self) -> io::Result<Option<Frame>> {
        let (received, header) = match self {
            End::Packet(sock) => (sock.recv(65_600), ETHERNET),
            End::Tun(file) => {
                let mut bytes = vec![0; 65_600];
                let received = (&*file).read(&mut bytes).map(|count| {
                    bytes.truncate(count);
                    bytes
                });
                (received, 0)
            }
        };
        match received {
            Ok(bytes) if bytes.len() <= header => Ok(None),
            Ok(bytes) => Ok(Some(Frame { bytes, header })),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn send(&self, frame: &Frame) -> io::Result<()> {
        let sent = match self {
            End::Packet(sock) => sock.send(&frame.bytes),
            End::Tun(file) => (&*file).write(&frame.bytes),
        };
        sent.map(drop)
    }

    /// Returns how many packets were lost at this end since the last call.
    pub(crate) fn lost(&self) -> u64 {
        let End::Packet(sock) = self else { return 0 };
        // struct tpacket_stats: packets, and those that were lost. Reading clears it.
        let stats = sock.getsockopt_bytes(SOL_PACKET, PACKET_STATISTICS, 8).unwrap_or_default();
        stats.get(4..8).and_then(<[u8]>::first_chunk).map_or(0, |lost| u32::from_ne_bytes(*lost).into())
    }
}

/// The queues in which packets wait for the kernel: a veth device puts each packet into the queue of a
/// processor. On a busy machine a thread of the kernel, ksoftirqd, takes it out much later, and until
/// then neither a socket nor the wire has it.
#[derive(Debug)]
pub(crate) struct ProcessorQueues(Option<File>);

impl ProcessorQueues {
    /// Opens `/proc/net/softnet_stat`. Without it, all queues count as empty.
    pub(crate) fn open() -> ProcessorQueues {
        ProcessorQueues(File::open("/proc/net/softnet_stat").ok())
    }

    /// Returns whether no packet waits. The queues belong to the whole system.
    pub(crate) fn are_empty(&self) -> bool {
        let Some(mut file) = self.0.as_ref() else { return true };
        let mut text = String::new();
        let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
        read.is_err() || text.lines().all(|line| queue_length(line) == 0)
    }
}

/// Length of a processor's queue. Linux prints it in the twelfth column, since 5.10.
fn queue_length(line: &str) -> u32 {
    let column = line.split_ascii_whitespace().nth(11);
    column.and_then(|length| u32::from_str_radix(length, 16).ok()).unwrap_or_default()
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            End::Packet(sock) => sock.as_fd(),
            End::Tun(file) => file.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_of_a_processor_is_read_from_its_column() {
        let begin =
            "124fd85f 00000000 00000014 00000000 00000000 00000000 00000000 00000000 00000000 00000000";
        // Linux 6, 5.10 and 4.19.
        for (end, length) in [
            ("00000000 0000001f 00000001 0000000f 00000010", 31),
            ("00000000 00000003 00000001", 3),
            ("00000001", 0),
        ] {
            assert_eq!(queue_length(&format!("{begin} {end}")), length);
        }
        assert_eq!(queue_length(""), 0);
        let queues = ProcessorQueues::open();
        assert!(queues.0.is_none() || (0..100_000).any(|_| queues.are_empty()));
    }
}
