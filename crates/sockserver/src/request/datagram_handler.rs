//! Handlers of datagrams.

use std::fmt;
use std::io::{self, Cursor};
use std::sync::Arc;

use sock::{Address, Socket, UnixAddress};

use crate::connection::datagram::{self, DatagramBuf};
use crate::lifecycle::handle::ServerHandle;
use crate::limits::clock::Clock;
use crate::os::batch::{self, PacketInfo};
use crate::os::guard::{first_error, guard};
use crate::request::core::MakeDatagramHandler;
use crate::request::datagram_batch::AnswerBatch;
use crate::request::{RequestError, catch_panic};

/// Serves one datagram. Python: `socketserver.DatagramRequestHandler`.
///
/// The life of a handler: the server's factory makes it in the worker,
/// [`setup`](Self::setup), [`handle`](Self::handle), [`finish`](Self::finish)
/// (after a `handle` that failed too, but not after a `setup` that failed), and
/// it is dropped. What `handle` writes to `cx.wfile` goes to the sender as one
/// datagram.
///
/// # Examples
///
/// ```
/// use std::io::{self, Write};
/// use sockserver::{DatagramContext, DatagramRequestHandler, UDPServer};
///
/// struct Upper;
///
/// impl DatagramRequestHandler for Upper {
///     fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
///         cx.wfile.write_all(&cx.packet.to_ascii_uppercase())
///     }
/// }
///
/// let server = UDPServer::new(("127.0.0.1", 0), || Upper)?;
/// # std::io::Result::Ok(())
/// ```
///
/// # When this isn't enough
///
/// To send more than one datagram, or to another address, use
/// [`cx.sendto`](DatagramContext::sendto).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler for datagrams",
    label = "not a `DatagramRequestHandler`",
    note = "implement `DatagramRequestHandler`, whose `handle` serves one datagram, and pass a closure that \
            returns the handler: `|| Echo`",
    note = "a server of connections needs a `StreamRequestHandler`"
)]
pub trait DatagramRequestHandler: Send + 'static {
    /// Prepares the request. By default it does nothing.
    ///
    /// # Errors
    ///
    /// If it returns an error, the request ends, and neither `handle` nor `finish` is called.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use sockserver::{DatagramContext, DatagramRequestHandler, UDPServer};
    ///
    /// #[derive(Default)]
    /// struct Lookup {
    ///     name: String,
    /// }
    ///
    /// impl DatagramRequestHandler for Lookup {
    ///     fn setup(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
    ///         self.name = String::from_utf8_lossy(cx.packet).into_owned();
    ///         Ok(())
    ///     }
    ///
    ///     fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
    ///         write!(cx.wfile, "{} is unknown", self.name)
    ///     }
    /// }
    ///
    /// let server = UDPServer::new(("127.0.0.1", 0), Lookup::default)?;
    /// let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0)?;
    /// client.sendto(b"alice", server.server_address())?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"alice is unknown");
    /// # std::io::Result::Ok(())
    /// ```
    fn setup(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Serves the datagram.
    ///
    /// # Errors
    ///
    /// If it returns an error, the request ends after `finish` was called.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use sockserver::{DatagramContext, DatagramRequestHandler, UDPServer};
    ///
    /// struct Echo;
    ///
    /// impl DatagramRequestHandler for Echo {
    ///     fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
    ///         cx.wfile.write_all(cx.packet)                      // self.wfile.write(self.packet)
    ///     }
    /// }
    ///
    /// let server = UDPServer::new(("127.0.0.1", 0), || Echo)?;
    /// let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0)?;
    /// client.sendto(b"hello", server.server_address())?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()>;

    /// Sends the answer. By default the answer is `cx.wfile`, and nothing is sent if that is empty
    /// (Python sends an empty datagram then). A client of a Unix socket that has bound no address,
    /// such as Python's `SysLogHandler`, cannot get an answer. Its answer is skipped, and logged at
    /// `debug`. The answer comes from the address that the datagram was sent to, also if the server
    /// listens on all addresses.
    ///
    /// # Errors
    ///
    /// If it returns an error, the error is passed to `handle_error`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use sockserver::{DatagramContext, DatagramRequestHandler, UDPServer};
    ///
    /// struct Silent;
    ///
    /// impl DatagramRequestHandler for Silent {
    ///     fn handle(&mut self, _cx: &mut DatagramContext<'_>) -> io::Result<()> {
    ///         Ok(())
    ///     }
    ///
    ///     fn finish(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
    ///         // As in Python, an empty answer is sent too.
    ///         cx.sendto(&cx.wfile, cx.client_address).map(drop)
    ///     }
    /// }
    ///
    /// let server = UDPServer::new(("127.0.0.1", 0), || Silent)?;
    /// let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0)?;
    /// client.sendto(b"hello", server.server_address())?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"");
    /// # std::io::Result::Ok(())
    /// ```
    fn finish(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        if cx.wfile.is_empty() {
            return Ok(());
        }
        if has_no_address(cx.client_address) {
            log::debug!(
                count = cx.wfile.len();
                "answer of {} bytes skipped: the client has no address", cx.wfile.len()
            );
            return Ok(());
        }
        match &mut cx.batch {
            Some(batch) => {
                cx.server.traffic().add_bytes(0, cx.wfile.len() as u64);
                batch.push(std::mem::take(&mut cx.wfile), cx.client_address, cx.info);
            }
            None => {
                let sent = cx.sendto(&cx.wfile, cx.client_address);
                sent.map_err(|error| answer_error(error, cx.client_address))?;
            }
        }
        Ok(())
    }
}

/// Whether the client cannot be answered: the socket of a Unix client need not be bound.
fn has_no_address(client_address: &Address) -> bool {
    matches!(client_address, Address::None | Address::Unix(UnixAddress::Unnamed))
}

/// The error of an answer. A Unix client that has closed its socket has disconnected, which is no
/// error of the server.
pub(crate) fn answer_error(error: io::Error, client_address: &Address) -> io::Error {
    let is_gone = matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
    if is_gone && matches!(client_address, Address::Unix(_)) {
        return io::Error::new(io::ErrorKind::ConnectionReset, error);
    }
    error
}

/// The error of a handler that has called `sendto` for a client without an address.
fn handler_error(error: RequestError, client_address: &Address) -> RequestError {
    match error {
        RequestError::Failed(error) if has_no_address(client_address) => {
            let name = guard(|| sock::errno(&error)).ok().flatten().and_then(sock::errno_name);
            let is_send = matches!(name, Some("EINVAL" | "EDESTADDRREQ" | "ENOTCONN"))
                || matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected);
            RequestError::Failed(match is_send {
                true => io::Error::new(io::ErrorKind::NotConnected, error),
                false => error,
            })
        }
        error => error,
    }
}

/// The datagram that a handler serves.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use sockserver::{UDPServer, datagram_handler_fn};
///
/// let describe = datagram_handler_fn(|cx| {
///     write!(cx.wfile, "{} bytes from {}", cx.packet.len(), cx.client_address.ip().unwrap())
/// });
/// let server = UDPServer::new(("127.0.0.1", 0), describe)?;
/// let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0)?;
/// client.sendto(b"hello", server.server_address())?;
/// server.handle_request()?;
/// assert_eq!(client.recv(100)?, b"5 bytes from 127.0.0.1");
/// # std::io::Result::Ok(())
/// ```
#[non_exhaustive]
pub struct DatagramContext<'a> {
    /// The datagram, cut at the server's `max_packet_size`.
    pub packet: &'a [u8],
    /// Whether it was longer than that. Python has no such information.
    pub is_truncated: bool,
    /// The server's socket, shared with every other request. If the server listens on all
    /// addresses, the system chooses the address that `cx.socket.sendto` sends from. Use
    /// [`sendto`](Self::sendto) to answer.
    pub socket: &'a Socket,
    /// `packet` as a file.
    pub rfile: Cursor<&'a [u8]>,
    /// The answer, sent by `finish`.
    pub wfile: Vec<u8>,
    /// The address of the sender.
    pub client_address: &'a Address,
    /// The handle of the server, for example to stop it.
    pub server: &'a ServerHandle,
    /// The batch whose answers are sent together.
    batch: Option<&'a mut AnswerBatch>,
    /// The address that the datagram was sent to, if the server listens on all addresses.
    info: Option<&'a PacketInfo>,
}

impl DatagramContext<'_> {
    /// Returns the address that the datagram was sent to, with the server's port.
    ///
    /// If the server listens on all addresses, the system reports it for each datagram. It may be a
    /// broadcast address or a multicast group. A link-local IPv6 address has a scope. On a server
    /// for `::` an IPv4 address has the form `::ffff:a.b.c.d`, as the client's has. Otherwise it is
    /// the address that the server is bound to. Python has no such information.
    ///
    /// System calls: getsockname(2). The options `IP_PKTINFO` and `IPV6_RECVPKTINFO`, on FreeBSD
    /// `IP_RECVDSTADDR`, are set on wildcard addresses only.
    ///
    /// # Platform notes
    ///
    /// On Windows a server that listens on all addresses gets the wildcard address.
    ///
    /// # Errors
    ///
    /// Returns an error if getsockname(2) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{UDPServer, datagram_handler_fn};
    ///
    /// let which = datagram_handler_fn(|cx| {
    ///     let address = cx.destination_address()?;
    ///     write!(cx.wfile, "you have asked {address}")
    /// });
    /// let server = UDPServer::new(("", 0), which)?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn destination_address(&self) -> io::Result<Address> {
        datagram::destination_address(self.socket, self.info)
    }

    /// Sends a datagram at once, from the address that the handler's datagram was sent to. Returns
    /// the number of bytes sent.
    ///
    /// After a broadcast or multicast datagram it is sent from the address of the interface that
    /// received the datagram, if the system reports it, and otherwise from an address that the
    /// system chooses. The system also chooses if the address no longer belongs to this host.
    ///
    /// System calls: sendmsg(2) if the server listens on all addresses, otherwise sendto(2).
    ///
    /// # Errors
    ///
    /// Returns an error if the system call fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{UDPServer, datagram_handler_fn};
    ///
    /// let twice = datagram_handler_fn(|cx| {
    ///     cx.sendto(b"one", cx.client_address)?;
    ///     cx.sendto(b"two", cx.client_address)?;
    ///     Ok(())
    /// });
    /// let server = UDPServer::new(("", 0), twice)?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendto(&self, data: &[u8], address: &Address) -> io::Result<usize> {
        let sent = batch::send_from(self.socket, data, address, self.info)?;
        self.server.traffic().add_bytes(0, sent as u64);
        Ok(sent)
    }
}

impl fmt::Debug for DatagramContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramContext")
            .field("client_address", self.client_address)
            .field("packet", &format_args!("{} bytes", self.packet.len()))
            .finish_non_exhaustive()
    }
}

/// Creates a handler factory from a closure, for datagrams.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use sockserver::{UDPServer, datagram_handler_fn};
///
/// let echo = datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet));
/// let server = UDPServer::new(("127.0.0.1", 0), echo)?;
/// # std::io::Result::Ok(())
/// ```
pub fn datagram_handler_fn<F>(handle: F) -> impl Fn() -> DatagramHandlerFn<F> + Send + Sync + 'static
where
    F: Fn(&mut DatagramContext<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    let handle = Arc::new(handle);
    move || DatagramHandlerFn(Arc::clone(&handle))
}

/// The handler that [`datagram_handler_fn`] creates.
///
/// # Examples
///
/// ```
/// use sockserver::{DatagramHandlerFn, DatagramRequestHandler, datagram_handler_fn};
///
/// fn is_handler<H: DatagramRequestHandler>(_make: &impl Fn() -> H) -> bool {
///     true
/// }
///
/// let echo = datagram_handler_fn(|cx| cx.sendto(cx.packet, cx.client_address).map(drop));
/// let handler: DatagramHandlerFn<_> = echo();
/// assert!(is_handler(&echo));
/// # drop(handler);
/// ```
pub struct DatagramHandlerFn<F>(Arc<F>);

impl<F> fmt::Debug for DatagramHandlerFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramHandlerFn").finish_non_exhaustive()
    }
}

impl<F> DatagramRequestHandler for DatagramHandlerFn<F>
where
    F: Fn(&mut DatagramContext<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        (self.0)(cx)
    }
}

/// A datagram handler whose type is forgotten, so that servers need not name it.
pub(crate) trait ErasedDatagramHandler: Send {
    fn setup(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()>;
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()>;
    fn finish(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()>;
}

impl<H: DatagramRequestHandler> ErasedDatagramHandler for H {
    fn setup(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        DatagramRequestHandler::setup(self, cx)
    }

    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        DatagramRequestHandler::handle(self, cx)
    }

    fn finish(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        DatagramRequestHandler::finish(self, cx)
    }
}

/// A datagram before it has a handler.
pub(crate) struct ReceivedDatagram<'a> {
    data: &'a [u8],
    is_truncated: bool,
    socket: &'a Socket,
    info: Option<&'a PacketInfo>,
}

impl<'a> ReceivedDatagram<'a> {
    /// Cuts what was received at `max_packet_size`.
    pub(crate) fn new(
        received: &'a [u8],
        max_packet_size: usize,
        socket: &'a Socket,
        info: Option<&'a PacketInfo>,
    ) -> Self {
        let data = &received[..received.len().min(max_packet_size)];
        ReceivedDatagram { data, is_truncated: received.len() > max_packet_size, socket, info }
    }
}

impl<'a> From<&'a DatagramBuf> for ReceivedDatagram<'a> {
    fn from(packet: &'a DatagramBuf) -> Self {
        let (data, is_truncated, info) = (packet.data(), packet.is_truncated(), packet.info());
        ReceivedDatagram { data, is_truncated, socket: packet.socket(), info }
    }
}

/// Serves one datagram: makes its handler, calls `setup`, `handle` and `finish`. `answer` is the
/// buffer of the answer. With a batch the answer is added to it, and not sent. `begun` is when the
/// datagram was received: see [`Clock::stamp`].
pub(crate) fn serve(
    make: &MakeDatagramHandler,
    datagram: ReceivedDatagram<'_>,
    client_address: &Address,
    server: &ServerHandle,
    begun: u32,
    answer: &mut Vec<u8>,
    batch: Option<&mut AnswerBatch>,
) -> Result<(), RequestError> {
    let mut cx = DatagramContext {
        packet: datagram.data,
        is_truncated: datagram.is_truncated,
        socket: datagram.socket,
        rfile: Cursor::new(datagram.data),
        wfile: std::mem::take(answer),
        client_address,
        server,
        batch,
        info: datagram.info,
    };
    let (mut made, mut is_to_finish, mut is_counted) = (None, false, false);
    let count = || {
        let registry = server.registry();
        let traffic = registry.permits.traffic();
        traffic.add_request(Clock::between(begun, registry.permits.clock().now()));
        traffic.add_bytes(datagram.data.len() as u64, 0);
        registry.count_request_of_worker();
    };
    // One guard for all, unless something fails.
    let mut served = catch_panic(|| {
        let handler: &mut Box<dyn ErasedDatagramHandler> = made.insert(make());
        handler.setup(&mut cx)?;
        is_to_finish = true;
        let handled = handler.handle(&mut cx);
        // Before the client has its answer.
        is_counted = true;
        count();
        handled?;
        is_to_finish = false;
        handler.finish(&mut cx)?;
        drop(made.take());
        Ok(())
    });
    if served.is_err() {
        if !is_counted {
            count();
        }
        // A handler whose setup failed is not finished, as in Python.
        served = first_error(served, end(made, is_to_finish, &mut cx));
    }
    cx.wfile.clear();
    // A datagram has at most 64 KiB. A larger buffer is not kept.
    if cx.wfile.capacity() <= 1 << 16 {
        *answer = cx.wfile;
    }
    served.map_err(|error| handler_error(error, client_address))
}

/// What follows although something has failed.
#[cold]
fn end(
    mut handler: Option<Box<dyn ErasedDatagramHandler>>,
    is_to_finish: bool,
    cx: &mut DatagramContext<'_>,
) -> Result<(), RequestError> {
    let finished = catch_panic(|| match &mut handler {
        Some(handler) if is_to_finish => handler.finish(cx),
        _ => Ok(()),
    });
    let dropped = catch_panic(|| {
        drop(handler);
        Ok(())
    });
    first_error(finished, dropped)
}
