//! Access to a connection from outside its handler.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sock::{Address, Shutdown, Socket, StreamSocket};

/// Access to a client's connection for other handlers and threads, such as those of a chat server.
///
/// [`StreamContext::client_handle`](crate::StreamContext::client_handle) returns it. It can be cloned
/// and stored. It sends through TLS if the connection uses TLS. The connection ends as without it:
/// when its handler is done, or when a deadline or a drain ends it. Then every call fails.
///
/// Clones send one after the other, so a [`sendall`](Self::sendall) is not mixed with another. The
/// handler's own `cx.wfile` does not wait for them. A send blocks while the client does not read, for
/// at most the server's [`write_timeout`](crate::Builder::write_timeout).
///
/// In a forking or pre-forking server a handle works in its own process only.
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use sockserver::{ClientHandle, ThreadingTCPServer, handler_fn};
///
/// let room: Arc<Mutex<Vec<ClientHandle>>> = Arc::default();
/// let server = ThreadingTCPServer::new(("127.0.0.1", 0), handler_fn(move |cx| {
///     room.lock().unwrap().push(cx.client_handle()?);
///     for line in &mut cx.rfile {
///         let line = line?;
///         // A client that has left is removed.
///         room.lock().unwrap().retain(|member| member.sendall(&line).is_ok());
///     }
///     Ok(())
/// }))?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct ClientHandle(Arc<Inner>);

struct Inner {
    target: Target,
    address: Address,
    /// Held while bytes are sent, which may wait up to the write timeout. The stream may be one of
    /// `wrap_request`, so this is code of the user, and the records of its calls are logged at once.
    sending: Mutex<()>,
}

enum Target {
    /// A second descriptor of a plain socket. The server shuts the connection down when it ends.
    Socket(Socket),
    /// The stream of `wrap_request`. Its descriptor is closed with the connection.
    Stream(Weak<dyn StreamSocket>),
}

impl ClientHandle {
    pub(crate) fn of_socket(socket: &Socket, address: &Address) -> io::Result<ClientHandle> {
        Ok(ClientHandle::new(Target::Socket(socket.dup()?), address))
    }

    pub(crate) fn of_stream(stream: &Arc<dyn StreamSocket>, address: &Address) -> ClientHandle {
        ClientHandle::new(Target::Stream(Arc::downgrade(stream)), address)
    }

    fn new(target: Target, address: &Address) -> ClientHandle {
        ClientHandle(Arc::new(Inner { target, address: address.clone(), sending: Mutex::new(()) }))
    }

    /// Returns the client's address. Python: `self.client_address`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|cx| {
    ///     let handle = cx.client_handle()?;
    ///     assert_eq!(handle.client_address(), cx.client_address);
    ///     Ok(())
    /// }))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().finished, 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn client_address(&self) -> &Address {
        &self.0.address
    }

    /// Sends all of `data`. Python: `self.request.sendall`.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection has ended (`NotConnected`, `BrokenPipe`,
    /// `ConnectionReset`), or if the client does not read within the write timeout (`TimedOut`).
    ///
    /// # Examples
    ///
    /// Another thread sends to the client:
    ///
    /// ```
    /// use std::thread;
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|cx| {
    ///     let handle = cx.client_handle()?;
    ///     thread::spawn(move || handle.sendall(b"news\n")).join().unwrap()
    /// }))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"news\n");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendall(&self, data: &[u8]) -> io::Result<()> {
        let _sending = self.0.sending.lock();
        self.with_stream(|stream| stream.sendall(data).map_err(|error| send_timeout(stream, error)))
    }

    /// Shuts down sending, receiving, or both. Python: `self.request.shutdown`.
    ///
    /// With TLS a close_notify is sent if sending ends. `SHUT_RDWR` ends the handler's reads and all
    /// sends, and does not wait for either.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection has ended (`NotConnected`).
    ///
    /// # Examples
    ///
    /// Another thread ends a connection whose handler waits for its client:
    ///
    /// ```
    /// use std::thread;
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|cx| {
    ///     let handle = cx.client_handle()?;
    ///     thread::spawn(move || handle.shutdown(sock::SHUT_RDWR));
    ///     cx.request.recv(1).map(drop)
    /// }))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(1)?, b"");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.with_stream(|stream| match how {
            // A close_notify would wait for a send that blocks.
            Shutdown::Both => stream.socket().shutdown(how),
            how => stream.shutdown(how),
        })
    }

    fn with_stream<T>(&self, act: impl FnOnce(&dyn StreamSocket) -> io::Result<T>) -> io::Result<T> {
        match &self.0.target {
            Target::Socket(socket) => act(socket),
            Target::Stream(stream) => {
                let stream = stream.upgrade().ok_or(io::ErrorKind::NotConnected)?;
                act(&*stream)
            }
        }
    }
}

/// `EAGAIN` of a blocking socket means that `SO_SNDTIMEO` has expired.
fn send_timeout(stream: &dyn StreamSocket, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock if stream.gettimeout().is_none() => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

/// Handles are equal if they are clones of one another.
impl PartialEq for ClientHandle {
    fn eq(&self, other: &ClientHandle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ClientHandle {}

impl fmt::Debug for ClientHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientHandle").field("client_address", &self.0.address).finish_non_exhaustive()
    }
}
