//! The buffers of received datagrams.

use std::fmt;
use std::io;

use crate::address::Address;
use crate::consts::{MSG_TRUNC, MsgFlags};
use crate::error::invalid;
use crate::socket::message::ancillary::{self, PacketInfo};
use crate::sys::batch;

/// Room for the items with the packet information: two on a dual-stack socket of Linux, and more if
/// the program has requested other items.
const PACKET_INFO_ROOM: usize = 256;

/// Buffers for the datagrams that [`Socket::recvmmsg`](crate::Socket::recvmmsg) receives.
///
/// The buffers are allocated once and reused by each call. Receiving into them allocates nothing.
///
/// # Examples
///
/// ```
/// use sock::{AF_INET, RecvBatch, SOCK_DGRAM, Socket};
///
/// let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
/// receiver.bind(("127.0.0.1", 0))?;
/// let sender = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
/// let to = receiver.getsockname()?;
/// assert_eq!(sender.sendmmsg(&[("one", &to), ("two", &to)])?.count, 2);
///
/// let mut batch = RecvBatch::new(64, 1500)?;
/// receiver.recvmmsg(&mut batch)?;
/// for datagram in batch.iter() {
///     println!("{} sent {} bytes", datagram.address(), datagram.data().len());
/// }
/// assert_eq!(batch.iter().map(|datagram| datagram.data()).collect::<Vec<_>>(), [b"one", b"two"]);
/// # std::io::Result::Ok(())
/// ```
pub struct RecvBatch {
    pub(super) slots: batch::Slots,
}

impl RecvBatch {
    /// Creates buffers for `datagrams` datagrams of up to `size` bytes each.
    ///
    /// # Errors
    ///
    /// Returns an error if `datagrams` is 0 (`InvalidInput`) or if the buffers cannot be allocated
    /// (`OutOfMemory`).
    ///
    /// # Platform notes
    ///
    /// Linux receives at most 1024 datagrams in one call.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, RecvBatch, SOCK_DGRAM};
    ///
    /// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// theirs.send(b"hello")?;
    /// let mut batch = RecvBatch::new(64, 1500)?;
    /// assert_eq!(ours.recvmmsg(&mut batch)?, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new(datagrams: usize, size: usize) -> io::Result<RecvBatch> {
        RecvBatch::with_control(datagrams, size, 0)
    }

    /// Creates buffers as [`new`](RecvBatch::new) does, with room for the
    /// [`packet_info`](Datagram::packet_info) of each datagram.
    ///
    /// # Errors
    ///
    /// Returns an error if [`new`](RecvBatch::new) does.
    ///
    /// # Examples
    ///
    /// A server on all addresses answers from the address that the datagram was sent to:
    ///
    /// ```
    /// use sock::{AF_INET, PacketInfo, RecvBatch, SOCK_DGRAM, Socket};
    ///
    /// let server = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// server.bind(("", 0))?;
    /// server.set_recv_packet_info(true)?;
    /// let client = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// # let to = if cfg!(target_os = "linux") { "127.0.0.2" } else { "127.0.0.1" };
    /// client.sendto(b"hello", (to, server.getsockname()?.port().unwrap()))?;
    ///
    /// let mut batch = RecvBatch::with_packet_info(16, 1500)?;
    /// server.recvmmsg(&mut batch)?;
    /// let answers: Vec<_> = batch
    ///     .iter()
    ///     .map(|request| {
    ///         let from = request.packet_info().as_ref().and_then(PacketInfo::for_reply);
    ///         (request.data(), request.address(), from)
    ///     })
    ///     .collect();
    /// server.sendmmsg_with_packet_info(&answers)?;
    /// assert_eq!(client.recvfrom(100)?.1.ip(), Some(to.parse().unwrap()));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn with_packet_info(datagrams: usize, size: usize) -> io::Result<RecvBatch> {
        RecvBatch::with_control(datagrams, size, PACKET_INFO_ROOM)
    }

    fn with_control(datagrams: usize, size: usize, control_size: usize) -> io::Result<RecvBatch> {
        if datagrams == 0 {
            return Err(invalid("a batch must have room for at least 1 datagram"));
        }
        let slots = batch::Slots::new(datagrams, size, control_size).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(RecvBatch { slots })
    }

    /// Returns the number of datagrams that fit.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(sock::RecvBatch::new(64, 1500)?.capacity(), 64);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Returns the number of datagrams that the last call received.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, RecvBatch, SOCK_DGRAM};
    ///
    /// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// theirs.send(b"hello")?;
    /// let mut batch = RecvBatch::new(64, 1500)?;
    /// assert!(batch.is_empty());
    /// ours.recvmmsg(&mut batch)?;
    /// assert_eq!(batch.len(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns whether the last call received no datagrams, or no call has been made.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::RecvBatch;
    ///
    /// assert!(RecvBatch::new(64, 1500)?.is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a datagram of the last call.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, RecvBatch, SOCK_DGRAM};
    ///
    /// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// theirs.send(b"hello")?;
    /// let mut batch = RecvBatch::new(64, 1500)?;
    /// ours.recvmmsg(&mut batch)?;
    /// assert_eq!(batch.get(0).unwrap().data(), b"hello");
    /// assert!(batch.get(1).is_none());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Datagram<'_>> {
        (index < self.len()).then_some(Datagram { slots: &self.slots, index })
    }

    /// Iterates over the datagrams of the last call, in the order of arrival.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, RecvBatch, SOCK_DGRAM};
    ///
    /// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// theirs.send(b"one")?;
    /// theirs.send(b"two")?;
    /// let mut batch = RecvBatch::new(64, 1500)?;
    /// ours.recvmmsg(&mut batch)?;
    /// assert_eq!(batch.iter().map(|datagram| datagram.data()).collect::<Vec<_>>(), [b"one", b"two"]);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Datagram<'_>> {
        (0..self.len()).map(|index| Datagram { slots: &self.slots, index })
    }
}

impl fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A datagram of a [`RecvBatch`].
///
/// # Examples
///
/// ```
/// use sock::{AF_INET, RecvBatch, SOCK_DGRAM, Socket};
///
/// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
/// sock.bind(("127.0.0.1", 0))?;
/// sock.sendto(b"to myself", sock.getsockname()?)?;
/// let mut batch = RecvBatch::new(16, 1500)?;
/// sock.recvmmsg(&mut batch)?;
/// for datagram in batch.iter() {
///     assert_eq!((datagram.data(), datagram.address()), (&b"to myself"[..], sock.getsockname()?));
/// }
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy)]
pub struct Datagram<'a> {
    slots: &'a batch::Slots,
    index: usize,
}

impl<'a> Datagram<'a> {
    /// Returns the bytes that fit into the batch.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, RecvBatch, SOCK_DGRAM};
    ///
    /// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// theirs.send(b"hello")?;
    /// let mut batch = RecvBatch::new(1, 1500)?;
    /// ours.recvmmsg(&mut batch)?;
    /// assert_eq!(batch.get(0).unwrap().data(), b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.slots.data(self.index)
    }

    /// Returns the flags of the datagram, such as `MSG_TRUNC`, as in [`Message`](crate::Message).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, MSG_TRUNC, RecvBatch, SOCK_DGRAM};
    ///
    /// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// theirs.send(b"too long")?;
    /// let mut batch = RecvBatch::new(1, 3)?;
    /// ours.recvmmsg(&mut batch)?;
    /// let datagram = batch.get(0).unwrap();
    /// assert!(datagram.flags().contains(MSG_TRUNC) && datagram.is_truncated());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn flags(&self) -> MsgFlags {
        self.slots.flags(self.index).into()
    }

    /// Returns whether the datagram was truncated. The rest is discarded.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, RecvBatch, SOCK_DGRAM};
    ///
    /// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// theirs.send(b"too long")?;
    /// let mut batch = RecvBatch::new(1, 3)?;
    /// ours.recvmmsg(&mut batch)?;
    /// assert!(batch.get(0).unwrap().is_truncated());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.flags().contains(MSG_TRUNC)
    }

    /// Returns the real length of the datagram if the call had the flag `MSG_TRUNC`.
    ///
    /// Otherwise returns the length of [`data`](Datagram::data).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, MSG_TRUNC, RecvBatch, SOCK_DGRAM, Socket};
    ///
    /// # if cfg!(target_os = "linux") {
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.sendto(b"too long", sock.getsockname()?)?;
    /// let mut batch = RecvBatch::new(1, 3)?;
    /// sock.recvmmsg_with_flags(&mut batch, MSG_TRUNC)?;
    /// let datagram = batch.get(0).unwrap();
    /// assert_eq!((datagram.data(), datagram.size()), (&b"too"[..], 8));
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn size(&self) -> usize {
        self.slots.counted(self.index)
    }

    /// Returns the address of the sender, or [`Address::None`] if the sender has none.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, RecvBatch, SOCK_DGRAM, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.sendto(b"to myself", sock.getsockname()?)?;
    /// let mut batch = RecvBatch::new(1, 1500)?;
    /// sock.recvmmsg(&mut batch)?;
    /// assert_eq!(batch.get(0).unwrap().address(), sock.getsockname()?);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn address(&self) -> Address {
        Address::from_sys(&self.slots.address(self.index))
    }

    /// Returns the interface and the addresses of this host that received the datagram.
    ///
    /// Returns `None` unless the batch was created
    /// [`with_packet_info`](RecvBatch::with_packet_info) and the socket has the option
    /// [`set_recv_packet_info`](crate::Socket::set_recv_packet_info).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, RecvBatch, SOCK_DGRAM, Socket};
    ///
    /// let server = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// server.bind(("", 0))?;
    /// server.set_recv_packet_info(true)?;
    /// let client = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// client.sendto(b"hello", ("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let mut batch = RecvBatch::with_packet_info(1, 1500)?;
    /// server.recvmmsg(&mut batch)?;
    /// let info = batch.get(0).unwrap().packet_info().unwrap();
    /// assert_eq!(info.destination.to_string(), "127.0.0.1");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn packet_info(&self) -> Option<PacketInfo> {
        ancillary::packet_info(self.slots.control(self.index))
    }
}

impl fmt::Debug for Datagram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Datagram");
        shown.field("data", &format_args!("\"{}\"", self.data().escape_ascii()));
        shown.field("flags", &self.flags()).field("address", &self.address()).finish()
    }
}
