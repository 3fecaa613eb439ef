//! Where a builder begins: `new` and `builder` of the server classes.

use std::io;

use sock::ToAddress;

use super::Builder;
use crate::accept::mixin::MixIn;
use crate::api::kind::{Datagram, Family, Stream};
use crate::api::server::Server;
use crate::request::core::HandlerFactory;
use crate::request::datagram_handler::DatagramRequestHandler;
use crate::request::stream_handler::StreamRequestHandler;

impl<F: Family, M: MixIn + Default> Server<Stream<F>, M> {
    /// Creates a server that listens on `address` and serves each connection with its own handler.
    ///
    /// Python: `TCPServer(server_address, RequestHandlerClass)`. System calls: socket(2), bind(2),
    /// listen(2). `handler` is called once for each connection and returns its handler: `|| Echo`,
    /// or [`handler_fn`](crate::handler_fn) of a closure.
    ///
    /// # Errors
    ///
    /// Returns an [`AddressError`](sock::AddressError) if a system call fails, and the error of
    /// [`ToAddress`] if the address cannot be resolved. No descriptor is left open.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let greet = handler_fn(|cx| writeln!(cx.wfile, "hello"));
    /// let server = TCPServer::new(("127.0.0.1", 0), greet)?;     // TCPServer(("127.0.0.1", 0), Greet)
    ///
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"hello\n");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new<H: StreamRequestHandler>(
        address: impl ToAddress,
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::builder(handler).bind(address)
    }

    /// Creates a builder, for a server whose options or hooks differ from the defaults.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .request_queue_size(1024)                              // request_queue_size = 1024
    ///     .bind(("127.0.0.1", 0))?;
    /// assert_ne!(server.server_address().port(), Some(0));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn builder<H: StreamRequestHandler>(
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> Builder<Stream<F>, M> {
        Builder::begin(HandlerFactory::Stream(Box::new(move || Box::new(handler()))))
    }
}

impl<F: Family, M: MixIn + Default> Server<Datagram<F>, M> {
    /// Creates a server that receives datagrams on `address` and serves each with its own handler.
    ///
    /// Python: `UDPServer(server_address, RequestHandlerClass)`. System calls: socket(2), bind(2).
    /// `handler` is called once for each datagram and returns its handler.
    ///
    /// # Errors
    ///
    /// Returns an [`AddressError`](sock::AddressError) if a system call fails, and the error of
    /// [`ToAddress`] if the address cannot be resolved. No descriptor is left open.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{UDPServer, datagram_handler_fn};
    ///
    /// let echo = datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet));
    /// let server = UDPServer::new(("127.0.0.1", 0), echo)?;      // UDPServer(("127.0.0.1", 0), Echo)
    ///
    /// let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0)?;
    /// client.sendto(b"hello", server.server_address())?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new<H: DatagramRequestHandler>(
        address: impl ToAddress,
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::builder(handler).bind(address)
    }

    /// Creates a builder, for a server whose options or hooks differ from the defaults.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{UDPServer, datagram_handler_fn};
    ///
    /// let echo = datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet));
    /// let server = UDPServer::builder(echo)
    ///     .max_packet_size(1500)                                 // max_packet_size = 1500
    ///     .bind(("127.0.0.1", 0))?;
    /// assert_ne!(server.server_address().port(), Some(0));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn builder<H: DatagramRequestHandler>(
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> Builder<Datagram<F>, M> {
        Builder::begin(HandlerFactory::Datagram(Box::new(move || Box::new(handler()))))
    }
}
