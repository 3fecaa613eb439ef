//! Sending and receiving many datagrams in one call.

mod recv_batch;

use std::borrow::Borrow;
use std::fmt;
use std::io;

use socket2::SockAddr;

use crate::address::{Address, ToAddress};
use crate::call::deadline::Readiness;
use crate::call::hint;
use crate::call::trace::{self, TraceValue, call};
use crate::consts::{MSG_PEEK, MsgFlags};
use crate::error::invalid;
use crate::socket::Socket;
use crate::socket::message::ancillary::PacketInfo;
use crate::socket::message::cmsg::Ancillary;
use crate::sys::message::{self, Control};
use crate::sys::{AsFd, batch};

pub use recv_batch::{Datagram, RecvBatch};

/// The result of [`Socket::sendmmsg`].
///
/// # Examples
///
/// ```
/// use sock::{AF_UNIX, Address, SOCK_DGRAM, SentBatch};
///
/// let (ours, _theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
/// let sent: SentBatch = ours.sendmmsg(&[("one", Address::None), ("two", Address::None)])?;
/// assert!(sent.count == 2 && sent.error.is_none());
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct SentBatch {
    /// The number of datagrams sent, counted from the first.
    pub count: usize,
    /// The error of the next datagram, or `None` if all were sent.
    pub error: Option<io::Error>,
}

/// Several datagrams in one call. Unix only.
impl Socket {
    /// Receives all available datagrams that fit into the batch, and returns their number.
    ///
    /// Python: none. System call: recvmmsg(2) with `MSG_WAITFORONE`, once. It waits for the first
    /// datagram as [`recv`](Socket::recv) does, with one deadline, and not for others. The previous
    /// contents of the batch are discarded. Descriptors received with a datagram are closed, and
    /// `MSG_CTRUNC` is set.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does; the batch is then empty. An error after at
    /// least one datagram is returned by the next call.
    ///
    /// # Platform notes
    ///
    /// One system call on Linux. On macOS and FreeBSD recvmsg(2) is called once for each datagram.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, RecvBatch, SOCK_DGRAM};
    ///
    /// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// theirs.send(b"one")?;
    /// theirs.send(b"two")?;
    /// let mut batch = RecvBatch::new(16, 1500)?;
    /// assert_eq!(ours.recvmmsg(&mut batch)?, 2);
    /// assert_eq!(batch.get(1).unwrap().data(), b"two");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recvmmsg(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        self.recvmmsg_with_flags(batch, MsgFlags::NONE)
    }

    /// Receives as [`recvmmsg`](Socket::recvmmsg), with flags.
    ///
    /// With `MSG_PEEK` all datagrams of the batch are the same one.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, MSG_DONTWAIT, RecvBatch, SOCK_DGRAM};
    ///
    /// let (ours, _theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// let mut batch = RecvBatch::new(16, 1500)?;
    /// let error = ours.recvmmsg_with_flags(&mut batch, MSG_DONTWAIT).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recvmmsg_with_flags(&self, batch: &mut RecvBatch, flags: MsgFlags) -> io::Result<usize> {
        let fd = self.fileno();
        let (capacity, size) = (batch.capacity(), batch.slots.size());
        self.retry_with_flags(Readiness::Readable, flags, || {
            if trace::enabled() {
                let count = call!("recvmmsg({fd}, {capacity} of {size}, {flags})" =>
                    batch.slots.receive(self.as_fd(), flags.as_raw()))?;
                if hint::enabled() {
                    for datagram in batch.iter().filter(|_| !flags.contains(MSG_PEEK)) {
                        self.hint_message("recvmmsg", size, datagram.data().len(), datagram.flags());
                    }
                }
                return Ok(count);
            }
            batch.slots.receive(self.as_fd(), flags.as_raw())
        })
    }

    /// Sends datagrams, each to its address, until one fails.
    ///
    /// Python: none. System call: sendmmsg(2) with `MSG_NOSIGNAL`, and again only for datagrams
    /// that it did not accept. [`Address::None`] sends to the peer of a connected socket. The first
    /// datagram waits for room as [`send`](Socket::send) does, with one deadline. The others wait
    /// in blocking mode only.
    ///
    /// # Errors
    ///
    /// Returns an error of [`sendto`](Socket::sendto) if the first datagram fails. If a later one
    /// fails, its error is returned as [`error`](SentBatch::error) with the number of datagrams
    /// sent; `WouldBlock` means that the queue is full. An invalid address fails before anything is
    /// sent.
    ///
    /// # Platform notes
    ///
    /// One system call for up to 1024 datagrams on Linux, where a pending error that is reported
    /// after the first datagram is lost (sendmmsg(2)). On macOS and FreeBSD sendmsg(2) is called
    /// once for each datagram.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, Address, SOCK_DGRAM};
    ///
    /// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// let sent = ours.sendmmsg(&[("one", Address::None), ("two", Address::None)])?;
    /// assert!(sent.count == 2 && sent.error.is_none());
    /// assert_eq!(theirs.recv(100)?, b"one");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendmmsg<D, A>(&self, datagrams: &[(D, A)]) -> io::Result<SentBatch>
    where
        D: AsRef<[u8]>,
        A: Borrow<Address>,
    {
        self.sendmmsg_with_flags(datagrams, MsgFlags::NONE)
    }

    /// Sends as [`sendmmsg`](Socket::sendmmsg), with flags.
    ///
    /// # Errors
    ///
    /// Returns an error if [`sendmmsg`](Socket::sendmmsg) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, Address, MSG_DONTWAIT, SOCK_DGRAM};
    ///
    /// let (ours, _theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// let sent = ours.sendmmsg_with_flags(&vec![("x", Address::None); 100_000], MSG_DONTWAIT)?;
    /// assert!(sent.count < 100_000); // as many as fit into the queue
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendmmsg_with_flags<D, A>(&self, datagrams: &[(D, A)], flags: MsgFlags) -> io::Result<SentBatch>
    where
        D: AsRef<[u8]>,
        A: Borrow<Address>,
    {
        let prepared = datagrams
            .iter()
            .map(|(data, address)| self.prepare(data.as_ref(), address.borrow(), None))
            .collect::<io::Result<_>>()?;
        self.send_batch(prepared, flags)
    }

    /// Sends as [`sendmmsg`](Socket::sendmmsg), each datagram from the address and interface of its
    /// [`PacketInfo`], or with `None` from those that the system chooses.
    ///
    /// Python: none. System call: sendmmsg(2), with the items of
    /// [`Ancillary::pktinfo`](crate::Ancillary::pktinfo).
    ///
    /// # Errors
    ///
    /// Returns an error if [`sendmmsg`](Socket::sendmmsg) does. The system refuses an address that
    /// does not belong to this host: `EINVAL` or `ENETUNREACH` on Linux, `EADDRNOTAVAIL` on the BSDs.
    ///
    /// # Examples
    ///
    /// See [`RecvBatch::with_packet_info`].
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use sock::{AF_INET, PacketInfo, SOCK_DGRAM, Socket};
    ///
    /// let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// receiver.bind(("127.0.0.1", 0))?;
    /// let sender = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// # if cfg!(target_os = "linux") {
    /// let from = Some(PacketInfo::from_address(Ipv4Addr::new(127, 0, 0, 2)));
    /// sender.sendmmsg_with_packet_info(&[("hello", receiver.getsockname()?, from)])?;
    /// assert_eq!(receiver.recvfrom(100)?.1.ip(), Some(Ipv4Addr::new(127, 0, 0, 2).into()));
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendmmsg_with_packet_info<D, A>(
        &self,
        datagrams: &[(D, A, Option<PacketInfo>)],
    ) -> io::Result<SentBatch>
    where
        D: AsRef<[u8]>,
        A: Borrow<Address>,
    {
        let prepared = datagrams
            .iter()
            .map(|(data, address, from)| self.prepare(data.as_ref(), address.borrow(), *from))
            .collect::<io::Result<_>>()?;
        self.send_batch(prepared, MsgFlags::NONE)
    }

    fn prepare<'a>(
        &self,
        data: &'a [u8],
        address: &Address,
        from: Option<PacketInfo>,
    ) -> io::Result<Prepared<'a>> {
        let control = from.map(|from| {
            let item = Ancillary::pktinfo(from);
            let items = std::iter::once((item.level(), item.kind(), item.data()));
            message::build(items).ok_or_else(|| invalid("too much ancillary data"))
        });
        Ok(Prepared { data, to: self.target(address)?, control: control.transpose()? })
    }

    fn send_batch(&self, datagrams: Vec<Prepared<'_>>, flags: MsgFlags) -> io::Result<SentBatch> {
        if datagrams.is_empty() {
            return Ok(SentBatch { count: 0, error: None });
        }
        let fd = self.fileno();
        let outgoing = || datagrams.iter().map(Prepared::outgoing);
        let count = datagrams.len();
        let mut before = 0;
        loop {
            let sent = self.retry_with_flags(Readiness::Writable, flags, || {
                call!("sendmmsg({fd}, {} datagrams, {flags})", count - before =>
                match batch::send(self.as_fd(), outgoing().skip(before), flags.as_raw()) {
                    (0, Some(error)) => Err(error),
                    (count, error) => Ok(SentBatch { count, error }),
                })
            });
            let batch = match sent {
                Ok(SentBatch { count, error }) => SentBatch { count: before + count, error },
                Err(error) if before > 0 => SentBatch { count: before, error: Some(error) },
                Err(error) => return Err(error),
            };
            // A blocking descriptor would have waited for each datagram.
            let no_room = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
            if batch.count == before || !batch.error.as_ref().is_some_and(no_room) {
                return Ok(batch);
            }
            if !self.deadline_with_flags(Readiness::Writable, flags).emulates_blocking() {
                return Ok(batch);
            }
            before = batch.count;
        }
    }

    fn target(&self, address: &Address) -> io::Result<Option<SockAddr>> {
        match address {
            Address::None => Ok(None),
            address => address.to_address(self.family())?.to_sys().map(Some),
        }
    }
}

/// A datagram whose address and source are converted.
struct Prepared<'a> {
    data: &'a [u8],
    to: Option<SockAddr>,
    control: Option<Control>,
}

impl Prepared<'_> {
    fn outgoing(&self) -> batch::Outgoing<'_> {
        batch::Outgoing { data: self.data, to: self.to.as_ref(), control: self.control.as_ref() }
    }
}

impl TraceValue for SentBatch {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            None => write!(f, "{}", self.count),
            Some(error) => write!(f, "{}, then {error}", self.count),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::consts::{AF_INET, AF_UNIX, MSG_DONTWAIT, MSG_TRUNC, SOCK_DGRAM};
    use crate::create::create_server::socketpair_with;

    fn pair() -> (Socket, Socket) {
        socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap()
    }

    fn bound() -> (Socket, Address) {
        let sock = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        sock.bind(("127.0.0.1", 0)).unwrap();
        let address = sock.getsockname().unwrap();
        (sock, address)
    }

    fn texts(batch: &RecvBatch) -> Vec<String> {
        batch.iter().map(|datagram| String::from_utf8_lossy(datagram.data()).into_owned()).collect()
    }

    #[test]
    fn available_datagrams_are_received_in_order_with_their_senders() {
        let (receiver, to) = bound();
        let senders = [bound(), bound()];
        for (number, (sender, _)) in [0, 1, 0].map(|index| &senders[index]).into_iter().enumerate() {
            sender.sendto(format!("datagram {number}").as_bytes(), &to).unwrap();
        }
        let mut batch = RecvBatch::new(8, 100).unwrap();
        assert_eq!(receiver.recvmmsg(&mut batch).unwrap(), 3);
        assert_eq!(texts(&batch), ["datagram 0", "datagram 1", "datagram 2"]);
        let from: Vec<_> = batch.iter().map(|datagram| datagram.address()).collect();
        assert_eq!(from, [0, 1, 0].map(|index| senders[index].1.clone()));
        assert!(batch.get(3).is_none());
    }

    #[test]
    fn a_reused_batch_has_only_the_datagrams_of_the_last_call() {
        let (ours, theirs) = pair();
        let mut batch = RecvBatch::new(2, 5).unwrap();
        for text in ["first", "2nd", "3"] {
            ours.send(text.as_bytes()).unwrap();
        }
        assert_eq!(theirs.recvmmsg(&mut batch).unwrap(), 2);
        assert_eq!(texts(&batch), ["first", "2nd"]);
        assert_eq!(theirs.recvmmsg(&mut batch).unwrap(), 1);
        assert_eq!(texts(&batch), ["3"]);
        theirs.setblocking(false).unwrap();
        assert_eq!(theirs.recvmmsg(&mut batch).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(batch.is_empty() && batch.get(0).is_none());
    }

    #[test]
    fn an_address_has_no_bytes_of_a_previous_longer_one() {
        let directory = std::env::temp_dir();
        let path = |name: &str| directory.join(format!("sock-batch-{}-{name}", std::process::id()));
        let receiver = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
        receiver.bind(path("receiver")).unwrap();
        let mut batch = RecvBatch::new(1, 10).unwrap();
        for name in ["a-long-name", "short", "another-one"] {
            let sender = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
            sender.bind(path(name)).unwrap();
            sender.sendto(b"x", path("receiver")).unwrap();
            receiver.recvmmsg(&mut batch).unwrap();
            assert_eq!(batch.get(0).unwrap().address().path(), Some(&*path(name)));
            std::fs::remove_file(path(name)).unwrap();
        }
        let nameless = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
        nameless.sendto(b"x", path("receiver")).unwrap();
        nameless.sendto(b"x", path("receiver")).unwrap();
        receiver.recvmmsg(&mut batch).unwrap();
        assert_eq!(batch.get(0).unwrap().address(), receiver.recvfrom(10).unwrap().1);
        std::fs::remove_file(path("receiver")).unwrap();
    }

    #[test]
    fn only_a_truncated_datagram_is_flagged() {
        let (ours, theirs) = pair();
        for text in ["fits", "does not fit", "fits"] {
            ours.send(text.as_bytes()).unwrap();
        }
        let mut batch = RecvBatch::new(3, 4).unwrap();
        theirs.recvmmsg(&mut batch).unwrap();
        assert_eq!(texts(&batch), ["fits", "does", "fits"]);
        assert_eq!([0, 1, 2].map(|n| batch.get(n).unwrap().is_truncated()), [false, true, false]);
        assert_eq!(batch.get(1).unwrap().size(), 4);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_real_length_of_a_truncated_datagram_is_returned() {
        let (ours, theirs) = pair();
        ours.send(b"does not fit").unwrap();
        let mut batch = RecvBatch::new(1, 4).unwrap();
        theirs.recvmmsg_with_flags(&mut batch, MSG_TRUNC).unwrap();
        let datagram = batch.get(0).unwrap();
        assert_eq!((datagram.data(), datagram.size()), (&b"does"[..], 12));
    }

    #[test]
    fn buffers_of_size_zero_receive_datagrams() {
        let (ours, theirs) = pair();
        ours.send(b"discarded").unwrap();
        ours.send(b"").unwrap();
        let mut batch = RecvBatch::new(4, 0).unwrap();
        assert_eq!(theirs.recvmmsg(&mut batch).unwrap(), 2);
        assert_eq!([0, 1].map(|n| batch.get(n).unwrap().is_truncated()), [true, false]);
    }

    #[test]
    fn the_wait_for_the_first_datagram_follows_the_mode() {
        let (ours, theirs) = pair();
        let mut batch = RecvBatch::new(4, 10).unwrap();
        let timeout = Duration::from_millis(20);
        theirs.settimeout(timeout).unwrap();
        let begin = Instant::now();
        assert_eq!(theirs.recvmmsg(&mut batch).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= timeout);
        // In blocking mode one datagram is enough, although four fit.
        theirs.settimeout(None).unwrap();
        theirs.set_recv_timeout(Duration::from_secs(30)).unwrap();
        ours.send(b"one").unwrap();
        let begin = Instant::now();
        assert_eq!(theirs.recvmmsg(&mut batch).unwrap(), 1);
        assert!(begin.elapsed() < Duration::from_secs(30), "it waited for a second one");
        let error = theirs.recvmmsg_with_flags(&mut batch, MSG_DONTWAIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_error_of_the_first_datagram_is_returned_and_a_later_one_is_in_the_result() {
        let (receiver, to) = bound();
        let (sender, _) = bound();
        let too_long = vec![0; 70_000];
        let error = sender.sendmmsg(&[(&too_long[..], &to), (b"x", &to)]).unwrap_err();
        assert_eq!(crate::error::errno_name(error.raw_os_error().unwrap()), Some("EMSGSIZE"));
        let sent = sender.sendmmsg(&[(&b"one"[..], &to), (b"two", &to), (&too_long, &to), (b"x", &to)]);
        let sent = sent.unwrap();
        assert_eq!(sent.count, 2);
        let error = sent.error.unwrap();
        assert_eq!(crate::error::errno_name(error.raw_os_error().unwrap()), Some("EMSGSIZE"));
        let mut batch = RecvBatch::new(4, 10).unwrap();
        receiver.recvmmsg(&mut batch).unwrap();
        assert_eq!(texts(&batch), ["one", "two"]);
    }

    #[test]
    fn a_full_queue_ends_a_batch_without_losing_datagrams() {
        let (ours, theirs) = pair();
        ours.settimeout(Duration::from_millis(2)).unwrap();
        let datagrams: Vec<_> = (0..2000).map(|n| (format!("{n}"), Address::None)).collect();
        let mut rest = &datagrams[..];
        let mut batch = RecvBatch::new(100, 10).unwrap();
        let mut received = Vec::new();
        let mut was_full = false;
        while !rest.is_empty() {
            let sent = ours.sendmmsg(rest).unwrap();
            assert!(sent.count > 0 && (sent.count == rest.len()) == sent.error.is_none(), "{sent:?}");
            rest = &rest[sent.count..];
            if !rest.is_empty() {
                was_full = true;
                assert_eq!(sent.error.unwrap().kind(), io::ErrorKind::WouldBlock);
                // The queue is full, so the wait of the first datagram ends at the timeout.
                assert_eq!(ours.sendmmsg(rest).unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            while theirs.recvmmsg_with_flags(&mut batch, MSG_DONTWAIT).is_ok() {
                received.extend(texts(&batch));
            }
        }
        assert!(was_full);
        assert!(received.iter().eq(datagrams.iter().map(|(text, _)| text)));
    }

    #[test]
    fn more_datagrams_than_one_system_call_accepts_are_sent() {
        let (ours, theirs) = bound();
        let datagrams: Vec<_> = (0..3000).map(|_| (b"", &theirs)).collect();
        // The receiver does not read and loses datagrams, but all of them are sent.
        assert_eq!(ours.sendmmsg(&datagrams).unwrap().count, 3000);
    }

    #[test]
    fn an_invalid_address_fails_before_anything_is_sent() {
        let (receiver, to) = bound();
        let unix = "/tmp/x".to_address(AF_UNIX).unwrap();
        let error = receiver.sendmmsg(&[("x", &to), ("y", &unix)]).unwrap_err();
        assert!(error.to_string().contains("is of family AF_UNIX"), "{error}");
        receiver.setblocking(false).unwrap();
        assert_eq!(receiver.recv(1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(receiver.sendmmsg::<&str, Address>(&[]).unwrap().count, 0);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(RecvBatch::new(0, 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        for (count, size) in [(usize::MAX, 2), (2, usize::MAX), (usize::MAX / 2, 1), (1, usize::MAX / 2)] {
            assert_eq!(RecvBatch::new(count, size).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        }
    }

    /// A Unix socket receives descriptors where there is room for ancillary data.
    #[test]
    fn descriptors_in_a_batch_with_packet_info_are_closed() {
        use std::io::IoSlice;
        let (ours, theirs) = pair();
        let (sent, other) = crate::create::create_server::socketpair().unwrap();
        let rights = Ancillary::rights(&[sent.as_fd()]);
        ours.sendmsg(&[IoSlice::new(b"x")], &[rights]).unwrap();
        drop(sent);
        let mut batch = RecvBatch::with_packet_info(2, 10).unwrap();
        theirs.recvmmsg(&mut batch).unwrap();
        let datagram = batch.get(0).unwrap();
        assert_eq!((datagram.data(), datagram.packet_info()), (&b"x"[..], None));
        // The last copy of the descriptor is closed.
        assert_eq!(other.recv(1).unwrap(), b"");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn each_datagram_of_a_batch_has_the_address_that_it_was_sent_to() {
        use crate::consts::AF_INET6;
        for (bound, family) in [("0.0.0.0", AF_INET), ("::", AF_INET6)] {
            let server = Socket::new(family, SOCK_DGRAM, 0).unwrap();
            server.bind((bound, 0)).unwrap();
            let port = server.getsockname().unwrap().port().unwrap();
            server.set_recv_packet_info(true).unwrap();
            let client = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
            client.setsockopt(crate::consts::SOL_SOCKET, crate::consts::SO_BROADCAST, true).unwrap();
            let addresses = ["127.0.0.1", "127.0.0.2", "127.255.255.255"];
            for address in addresses {
                client.sendto(b"x", (address, port)).unwrap();
            }
            let mut batch = RecvBatch::with_packet_info(4, 10).unwrap();
            assert_eq!(server.recvmmsg(&mut batch).unwrap(), 3);
            let infos: Vec<_> = batch.iter().filter_map(|datagram| datagram.packet_info()).collect();
            let destinations: Vec<_> = infos.iter().map(|info| info.destination.to_string()).collect();
            assert_eq!(destinations, addresses, "on {bound}");
            let sources = infos.iter().map(|info| info.for_reply().unwrap().local.to_string());
            assert_eq!(sources.collect::<Vec<_>>(), ["127.0.0.1", "127.0.0.2", "127.0.0.1"]);
            // Without the option there is none.
            server.set_recv_packet_info(false).unwrap();
            client.sendto(b"x", ("127.0.0.1", port)).unwrap();
            server.recvmmsg(&mut batch).unwrap();
            assert_eq!(batch.get(0).unwrap().packet_info(), None);
        }
    }

    #[test]
    fn an_answer_keeps_the_interface_of_a_link_local_address_only() {
        let info = |address: &str| PacketInfo {
            interface: 3,
            ..PacketInfo::from_address(address.parse::<std::net::IpAddr>().unwrap())
        };
        let interface = |address| info(address).for_reply().map(|info| info.interface);
        assert_eq!(interface("fe80::1"), Some(3));
        assert_eq!(["2001:db8::1", "::1", "10.0.0.1"].map(interface), [Some(0); 3]);
        let groups = ["ff02::1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "::", "::ffff:224.0.0.1"];
        assert_eq!(groups.map(interface), [None; 6]);
    }
}
