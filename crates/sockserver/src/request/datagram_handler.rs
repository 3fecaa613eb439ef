//! Handlers of datagrams.

use std::fmt;
use std::io::{self, Cursor};
use std::sync::Arc;

use sock::{Address, Socket};

use crate::connection::datagram::DatagramBuf;
use crate::lifecycle::handle::ServerHandle;
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
/// To send more than one datagram, or to another address, use `cx.socket`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler for datagrams",
    label = "not a `DatagramRequestHandler`",
    note = "implement `DatagramRequestHandler`, whose `handle` serves one datagram, and pass a closure that \
            returns the handler: `|| Echo`",
    note = "a server of connections needs a `StreamRequestHandler`"
)]
pub trait DatagramRequestHandler: Send + 'static {
    /// Prepares. By default nothing.
    ///
    /// # Errors
    ///
    /// Ends the request; neither `handle` nor `finish` runs.
    fn setup(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Serves the datagram.
    ///
    /// # Errors
    ///
    /// Ends the request, after `finish`.
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()>;

    /// Answers. By default sends `cx.wfile` to the sender, if anything is in it
    /// (Python sends an empty datagram then).
    ///
    /// # Errors
    ///
    /// Are reported.
    fn finish(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        if cx.wfile.is_empty() {
            return Ok(());
        }
        match &mut cx.batch {
            Some(batch) => batch.push(std::mem::take(&mut cx.wfile), cx.client_address),
            None => {
                cx.socket.sendto(&cx.wfile, cx.client_address)?;
            }
        }
        Ok(())
    }
}

/// A datagram as its handler sees it.
#[non_exhaustive]
pub struct DatagramContext<'a> {
    /// The datagram, cut at the server's `max_packet_size`.
    pub packet: &'a [u8],
    /// Whether it was longer than that. Python has no such information.
    pub is_truncated: bool,
    /// The server's socket, shared with every other request.
    pub socket: &'a Socket,
    /// `packet` as a file.
    pub rfile: Cursor<&'a [u8]>,
    /// The answer, sent by `finish`.
    pub wfile: Vec<u8>,
    /// Who sent it.
    pub client_address: &'a Address,
    /// The server, as far as a handler may touch it: to stop it.
    pub server: &'a ServerHandle,
    /// The batch whose answers are sent together.
    batch: Option<&'a mut AnswerBatch>,
}

impl fmt::Debug for DatagramContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramContext")
            .field("client_address", self.client_address)
            .field("packet", &format_args!("{} bytes", self.packet.len()))
            .finish_non_exhaustive()
    }
}

/// Makes datagram handlers of a closure.
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

/// The handler that [`datagram_handler_fn`] makes.
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
}

impl<'a> ReceivedDatagram<'a> {
    /// Cuts what was received at `max_packet_size`.
    pub(crate) fn new(received: &'a [u8], max_packet_size: usize, socket: &'a Socket) -> Self {
        let data = &received[..received.len().min(max_packet_size)];
        ReceivedDatagram { data, is_truncated: received.len() > max_packet_size, socket }
    }
}

impl<'a> From<&'a DatagramBuf> for ReceivedDatagram<'a> {
    fn from(packet: &'a DatagramBuf) -> Self {
        let (data, is_truncated) = (packet.data(), packet.is_truncated());
        ReceivedDatagram { data, is_truncated, socket: packet.socket() }
    }
}

/// Serves one datagram: makes its handler, calls `setup`, `handle` and `finish`. `answer` is the
/// buffer of the answer. With a batch the answer is added to it, and not sent.
pub(crate) fn serve(
    make: &MakeDatagramHandler,
    datagram: ReceivedDatagram<'_>,
    client_address: &Address,
    server: &ServerHandle,
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
    };
    let (mut made, mut is_to_finish) = (None, false);
    // One guard for all, unless something fails.
    let mut served = catch_panic(|| {
        let handler: &mut Box<dyn ErasedDatagramHandler> = made.insert(make());
        handler.setup(&mut cx)?;
        is_to_finish = true;
        handler.handle(&mut cx)?;
        is_to_finish = false;
        handler.finish(&mut cx)?;
        drop(made.take());
        Ok(())
    });
    if served.is_err() {
        // A handler whose setup failed is not finished, as in Python.
        served = served.and(end(made, is_to_finish, &mut cx));
    }
    cx.wfile.clear();
    // A datagram has at most 64 KiB. A larger buffer is not kept.
    if cx.wfile.capacity() <= 1 << 16 {
        *answer = cx.wfile;
    }
    served
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
    finished.and(catch_panic(|| {
        drop(handler);
        Ok(())
    }))
}
