//! Handlers of datagrams.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Cursor};
use std::sync::Arc;

use sock::{Address, Socket};

use crate::connection::datagram::DatagramBuf;
use crate::lifecycle::handle::ServerHandle;
use crate::request::datagram_batch;
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
/// To send more than one datagram, or to somebody else, use `cx.socket`.
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
        if !cx.wfile.is_empty() && !datagram_batch::defer_answer(&mut cx.wfile, cx.client_address) {
            cx.socket.sendto(&cx.wfile, cx.client_address)?;
        }
        Ok(())
    }
}

/// A datagram as its handler sees it.
#[non_exhaustive]
pub struct DatagramContext<'a> {
    /// The datagram, cut at the server's `max_packet_size`.
    pub packet: &'a [u8],
    /// Whether it was longer than that. Python does not tell.
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

/// Serves one datagram: makes its handler, sets it up, runs and finishes it.
pub(crate) fn serve(
    make: &(dyn Fn() -> Box<dyn ErasedDatagramHandler> + Send + Sync),
    packet: &DatagramBuf,
    socket: &Socket,
    client_address: &Address,
    server: &ServerHandle,
) -> Result<(), RequestError> {
    let mut cx = DatagramContext {
        packet: packet.data(),
        is_truncated: packet.is_truncated(),
        socket,
        rfile: Cursor::new(packet.data()),
        wfile: ANSWER.take(),
        client_address,
        server,
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
    if cx.wfile.capacity() <= LARGEST_SPARE {
        ANSWER.with(|answer| answer.set(cx.wfile));
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

thread_local! {
    /// Where the answer is written.
    static ANSWER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// No larger one is kept: a datagram has at most 64 KiB.
const LARGEST_SPARE: usize = 1 << 16;
