//! The netlink socket: requests out, answers in.

use std::io;
use std::time::Duration;

use sock::{
    AF_NETLINK, Address, MSG_TRUNC, NETLINK_SOCK_DIAG, NetlinkAddress, SOCK_RAW, Socket, errno_name,
};

use crate::error::with_context;
use crate::wire::{
    Malformed, Message, Messages, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NLMSG_NOOP, SOCK_DESTROY, SOCK_DIAG_BY_FAMILY, message, u32_at,
};

/// The kernel makes the datagrams of a dump as large as the receive before, up to 32 KiB
/// (netlink_recvmsg).
const BUFFER: usize = 32 * 1024;

/// The kernel answers within the call. A sandbox that takes the request and never answers must not
/// block a program.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The address of the kernel.
pub(crate) const KERNEL: NetlinkAddress = NetlinkAddress { pid: 0, groups: 0 };

/// A socket of `NETLINK_SOCK_DIAG` that receives the messages of these multicast groups.
pub(crate) fn open(groups: u32) -> io::Result<Socket> {
    let sock = Socket::new(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG)?;
    sock.bind(NetlinkAddress { pid: 0, groups })?;
    Ok(sock)
}

/// A connection to the kernel for one request at a time.
pub(crate) struct Netlink {
    sock: Socket,
    buffer: Vec<u8>,
    seq: u32,
    /// An answer was not read to its end.
    unfinished: bool,
}

/// What became of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dumped {
    /// It is complete.
    Complete,
    /// The tables changed meanwhile, so that sockets may be missing or twice.
    Interrupted,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Netlink> {
        let sock = open(0)?;
        sock.settimeout(ANSWER_TIMEOUT)?;
        Ok(Netlink { sock, buffer: vec![0; BUFFER], seq: 0, unfinished: false })
    }

    /// Calls `each` with every socket of a dump.
    pub(crate) fn dump(
        &mut self,
        request: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> io::Result<Dumped> {
        let mut dump = Dump::new(self.send(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request)?);
        loop {
            if let Some(dumped) = dump.read(self.receive()?, &mut each)? {
                self.unfinished = false;
                return Ok(dumped);
            }
        }
    }

    /// Passes the one socket that a request asks for to `read`.
    pub(crate) fn one<T>(
        &mut self,
        request: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> io::Result<T> {
        let seq = self.send(SOCK_DIAG_BY_FAMILY, 0, request)?;
        loop {
            for message in self.receive()? {
                let message = message?;
                if message.seq != seq {
                    continue;
                }
                // A single answer has no end behind it.
                if let Answer::Row(row) = answer(&message)? {
                    let row = read(row)?;
                    self.unfinished = false;
                    return Ok(row);
                }
            }
        }
    }

    /// Sends a request that destroys a socket, and waits for the acknowledgement.
    pub(crate) fn destroy(&mut self, request: &[u8]) -> io::Result<()> {
        let seq = self.send(SOCK_DESTROY, NLM_F_ACK, request)?;
        loop {
            for message in self.receive()? {
                let message = message?;
                if message.seq == seq && message.kind == NLMSG_ERROR {
                    let result = status(message.payload);
                    self.unfinished = false;
                    return result;
                }
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, request: &[u8]) -> io::Result<u32> {
        if self.unfinished {
            // The kernel refuses a dump while another one goes on, and a receive is what lets a
            // dump go on.
            while self.sock.recvfrom_into_nowait(&mut self.buffer).is_ok() {}
        }
        self.seq = self.seq.wrapping_add(1);
        self.unfinished = true;
        let bytes = message(kind, flags | NLM_F_REQUEST, self.seq, request);
        self.sock.sendto(&bytes, KERNEL)?;
        Ok(self.seq)
    }

    fn receive(&mut self) -> io::Result<Messages<'_>> {
        receive(&self.sock, &mut self.buffer).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => with_context("the kernel does not answer", error),
            _ => error,
        })
    }
}

/// Receives a datagram of the kernel.
pub(crate) fn receive<'b>(sock: &Socket, buffer: &'b mut [u8]) -> io::Result<Messages<'b>> {
    loop {
        // MSG_TRUNC returns the whole length of a datagram that does not fit.
        let (length, sender) = sock.recvfrom_into_with_flags(buffer, MSG_TRUNC)?;
        // Other processes may send as well.
        if !matches!(sender, Address::Netlink(NetlinkAddress { pid: 0, .. })) {
            continue;
        }
        if length > buffer.len() {
            return Err(Malformed("it is larger than the kernel should send").into());
        }
        return Ok(Messages::new(&buffer[..length]));
    }
}

/// The answer to a request for a dump, datagram by datagram.
pub(crate) struct Dump {
    seq: u32,
    dumped: Dumped,
}

impl Dump {
    pub(crate) fn new(seq: u32) -> Dump {
        Dump { seq, dumped: Dumped::Complete }
    }

    /// Calls `each` with the sockets of a datagram. Returns `None` if another datagram follows.
    pub(crate) fn read(
        &mut self,
        messages: Messages<'_>,
        mut each: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> io::Result<Option<Dumped>> {
        for message in messages {
            let message = message?;
            // An answer to an earlier request.
            if message.seq != self.seq {
                continue;
            }
            if message.flags & NLM_F_DUMP_INTR != 0 {
                self.dumped = Dumped::Interrupted;
            }
            match answer(&message)? {
                Answer::Row(row) => each(row)?,
                Answer::End => return Ok(Some(self.dumped)),
                Answer::Nothing => {}
            }
        }
        Ok(None)
    }
}

enum Answer<'a> {
    Row(&'a [u8]),
    End,
    Nothing,
}

fn answer<'a>(message: &Message<'a>) -> io::Result<Answer<'a>> {
    match message.kind {
        SOCK_DIAG_BY_FAMILY => Ok(Answer::Row(message.payload)),
        NLMSG_NOOP => Ok(Answer::Nothing),
        NLMSG_DONE => {
            // Newer kernels end a dump that failed in this way.
            if message.payload.len() >= 4 {
                status(message.payload)?;
            }
            Ok(Answer::End)
        }
        NLMSG_ERROR => status(message.payload).map(|()| Answer::End),
        _ => Err(Malformed("it is of a kind that no request asks for").into()),
    }
}

/// The errno of an answer, which is negative, or success.
fn status(payload: &[u8]) -> io::Result<()> {
    let number = u32_at(payload, 0).ok_or(Malformed("an error is cut off"))? as i32;
    match number.checked_neg() {
        // The number of sockets at the end of some dumps, or 0.
        Some(errno) if errno <= 0 => Ok(()),
        Some(errno) if errno_name(errno).is_some() => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(Malformed("an error has a number that is none").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(errno: i32) -> io::Result<()> {
        status(&(-errno).to_ne_bytes())
    }

    #[test]
    fn an_errno_of_the_kernel_is_an_error() {
        error_of(0).unwrap();
        assert_eq!(error_of(1).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(error_of(5000).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(status(&i32::MIN.to_ne_bytes()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(status(&[0; 3]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    /// What becomes of a dump with the number 7, and how many sockets it has.
    fn dump(datagrams: &[&[Vec<u8>]]) -> (io::Result<Option<Dumped>>, usize) {
        let (mut dump, mut rows) = (Dump::new(7), 0);
        let mut end = Ok(None);
        for datagram in datagrams {
            end = dump.read(Messages::new(&datagram.concat()), |_| {
                rows += 1;
                Ok(())
            });
            if !matches!(end, Ok(None)) {
                break;
            }
        }
        (end, rows)
    }

    #[test]
    fn a_dump_ends_with_its_last_message_and_not_before() {
        let row = |seq, flags| message(SOCK_DIAG_BY_FAMILY, flags, seq, b"");
        let done = |seq, flags| message(NLMSG_DONE, flags, seq, &[0; 4]);
        let error = |errno: i32| message(NLMSG_ERROR, 0, 7, &(-errno).to_ne_bytes());

        let (end, rows) = dump(&[&[row(7, 2), row(7, 2)], &[row(7, 2), done(7, 2)], &[row(7, 2)]]);
        assert_eq!((end.unwrap(), rows), (Some(Dumped::Complete), 3));
        let (end, rows) = dump(&[&[row(7, 2)], &[done(6, 2), row(6, 2)]]);
        assert_eq!((end.unwrap(), rows), (None, 1));
        // One message with the flag is enough, whichever it is.
        for flags in [[NLM_F_DUMP_INTR, 0, 0], [0, NLM_F_DUMP_INTR, 0], [0, 0, NLM_F_DUMP_INTR]] {
            let (end, _) = dump(&[&[row(7, flags[0])], &[row(7, flags[1])], &[done(7, flags[2])]]);
            assert_eq!(end.unwrap(), Some(Dumped::Interrupted));
        }
        let (end, _) = dump(&[&[row(6, NLM_F_DUMP_INTR), done(7, 2)]]);
        assert_eq!(end.unwrap(), Some(Dumped::Complete));
        let (end, rows) = dump(&[&[row(7, 2), error(2)]]);
        assert_eq!((end.unwrap_err().kind(), rows), (io::ErrorKind::NotFound, 1));
        let failed = message(NLMSG_DONE, 2, 7, &(-12_i32).to_ne_bytes());
        assert_eq!(dump(&[&[failed]]).0.unwrap_err().raw_os_error(), Some(12));
        let unknown = message(99, 2, 7, b"");
        assert_eq!(dump(&[&[unknown]]).0.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let cut = row(7, 2)[..15].to_vec();
        assert_eq!(dump(&[&[row(7, 2), cut]]).0.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_answer_that_was_not_read_to_its_end_does_not_disturb_the_next() {
        let request = crate::request::inet_dump(
            crate::row::Protocol::Tcp,
            sock::AF_INET,
            &crate::filter::Filter::new(),
        );
        let server = sock::create_server(("127.0.0.1", 0)).unwrap();
        let mut netlink = Netlink::open().unwrap();
        for _ in 0..3 {
            let stopped = netlink.dump(&request, |_| Err(Malformed("stop"))).unwrap_err();
            assert!(stopped.to_string().contains("stop"), "{stopped}");
            let mut rows = 0;
            let dumped = netlink.dump(&request, |_| {
                rows += 1;
                Ok(())
            });
            assert_eq!(dumped.unwrap(), Dumped::Complete);
            assert!(rows >= 1);
        }
        drop(server);
    }
}
