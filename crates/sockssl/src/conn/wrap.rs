//! Wraps sockets in TLS.

use std::io;
use std::time::Duration;

use rustls_pki_types::ServerName;
use sock::{ArgumentError, ArgumentFault, SOCK_STREAM, Socket, ToTimeout};

use crate::conn::engine::Engine;
use crate::conn::socket::{ConnInfo, SSLSocket};
use crate::constants::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER};
use crate::context::SSLContext;
use crate::error::{invalid, misconfigured};
use crate::stats::increment;

/// Options for wrapping a socket. Python: the keyword arguments of `wrap_socket`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sockssl::WrapOptions;
///
/// let options = WrapOptions::new().handshake_timeout(Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WrapOptions {
    do_handshake_on_connect: bool,
    suppress_ragged_eofs: bool,
    /// An error is returned when the options are used.
    handshake_timeout: Result<Option<Duration>, ArgumentFault>,
}

impl Default for WrapOptions {
    fn default() -> Self {
        WrapOptions {
            do_handshake_on_connect: true,
            suppress_ragged_eofs: false,
            handshake_timeout: Ok(None),
        }
    }
}

impl WrapOptions {
    /// Creates the default options.
    ///
    /// The handshake is done while wrapping, under the socket's timeout, and a connection that
    /// ends without a close_notify is an error.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (sock, peer) = pki::sockets()?;
    /// # let serving = std::thread::spawn(move || pki::server()?.wrap_socket_server(peer));
    /// # let context = pki::client()?;
    /// use sockssl::WrapOptions;
    ///
    /// // The same as `wrap_socket_client(sock, "localhost")`.
    /// let sock = context.wrap_socket_client_with(sock, "localhost", &WrapOptions::new())?;
    /// assert_eq!(sock.version(), Some("TLSv1.3"));
    /// # serving.join().unwrap()?;
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> WrapOptions {
        WrapOptions::default()
    }

    /// Sets whether the handshake is done while wrapping. Python: `do_handshake_on_connect`.
    ///
    /// The default is true. If false, the first call that needs the handshake does it.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (sock, peer) = pki::sockets()?;
    /// # let serving = std::thread::spawn(move || pki::server()?.wrap_socket_server(peer));
    /// # let context = pki::client()?;
    /// use sockssl::WrapOptions;
    ///
    /// let options = WrapOptions::new().do_handshake_on_connect(false);  // do_handshake_on_connect=False
    /// let sock = context.wrap_socket_client_with(sock, "localhost", &options)?;
    /// assert_eq!(sock.version(), None);
    /// sock.do_handshake()?;
    /// assert_eq!(sock.version(), Some("TLSv1.3"));
    /// # serving.join().unwrap()?;
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn do_handshake_on_connect(mut self, at_once: bool) -> Self {
        self.do_handshake_on_connect = at_once;
        self
    }

    /// Sets whether the end of a connection without a close_notify is an end of file.
    ///
    /// The default is false: it is an error, since an attacker who can close the connection
    /// could truncate the data. Python: `suppress_ragged_eofs`, whose default is true.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (sock, peer) = pki::sockets()?;
    /// # let serving = std::thread::spawn(move || pki::server()?.wrap_socket_server(peer));
    /// # let context = pki::client()?;
    /// use sockssl::WrapOptions;
    ///
    /// let options = WrapOptions::new().suppress_ragged_eofs(true);
    /// let sock = context.wrap_socket_client_with(sock, "localhost", &options)?;
    /// # let server = serving.join().unwrap()?;
    /// # server.abort();
    /// // The server ends the connection without a close_notify.
    /// # drop(server);
    /// assert_eq!(sock.recv(1024)?, b"");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn suppress_ragged_eofs(mut self, suppress: bool) -> Self {
        self.suppress_ragged_eofs = suppress;
        self
    }

    /// Sets a timeout for the handshake. Python: none.
    ///
    /// It replaces the socket's timeout until the handshake is done. `None`, the default, means
    /// the socket's timeout. Zero is an error. It is ignored for a non-blocking socket. When it
    /// expires, the handshake fails with `TimedOut`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (sock, _silent) = pki::sockets()?;
    /// # let context = pki::client()?;
    /// use std::io::ErrorKind;
    /// use sockssl::WrapOptions;
    ///
    /// // `sock` is connected to a server that does not answer.
    /// let options = WrapOptions::new().handshake_timeout(0.05);
    /// let error = context.wrap_socket_client_with(sock, "localhost", &options).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::TimedOut);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: impl ToTimeout) -> Self {
        self.handshake_timeout = timeout
            .to_timeout()
            .map_err(|error| ArgumentError::of(&error).map_or(ArgumentFault::Value, ArgumentError::fault));
        self
    }
}

/// Wrapping sockets.
impl SSLContext {
    /// Wraps an accepted socket as a server and does the handshake.
    ///
    /// Python: `wrap_socket(sock, server_side=True)`. System calls: recv(2),
    /// send(2). The socket's timeout is one deadline for the whole handshake.
    ///
    /// # Errors
    ///
    /// Returns an error if the handshake fails: see [`do_handshake`](SSLSocket::do_handshake). An
    /// alert is sent to the client and the socket is closed. Returns an
    /// [`SSLError`](crate::SSLError) before anything is sent, with
    /// [`NoCertificateAssigned`](crate::Reason::NoCertificateAssigned) if the context has no
    /// certificate, or with [`BadConfiguration`](crate::Reason::BadConfiguration) if its settings
    /// contradict each other. Returns an error of kind `NotConnected` if the socket is not
    /// connected, and an error of kind `InvalidInput` if it is not a stream socket or if the
    /// context is one for clients.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let context = pki::server()?;
    /// let listener = sock::create_server(("127.0.0.1", 0))?;
    /// # let port = listener.getsockname()?.port().unwrap();
    /// # let client = std::thread::spawn(move || {
    /// #     pki::client()?.wrap_socket_client(sock::create_connection(("127.0.0.1", port))?, "localhost")?.recv(10)
    /// # });
    /// let (sock, _address) = listener.accept()?;
    /// let sock = context.wrap_socket_server(sock)?;  // context.wrap_socket(sock, server_side=True)
    /// sock.sendall(b"hello")?;
    /// # assert_eq!(client.join().unwrap()?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn wrap_socket_server(&self, sock: Socket) -> io::Result<SSLSocket> {
        self.wrap_socket_server_with(sock, &WrapOptions::new())
    }

    /// Wraps an accepted socket as a server, with options.
    ///
    /// See [`wrap_socket_server`](Self::wrap_socket_server).
    ///
    /// # Errors
    ///
    /// Returns an error if [`wrap_socket_server`](Self::wrap_socket_server) would, or
    /// `InvalidInput` if the options contradict the socket's timeout.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let context = pki::server()?;
    /// # let (client, sock) = pki::sockets()?;
    /// # let client = std::thread::spawn(move || pki::client()?.wrap_socket_client(client, "localhost")?.recv(10));
    /// use sockssl::WrapOptions;
    ///
    /// let options = WrapOptions::new().handshake_timeout(10);
    /// let sock = context.wrap_socket_server_with(sock, &options)?;
    /// sock.sendall(b"hello")?;
    /// # assert_eq!(client.join().unwrap()?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn wrap_socket_server_with(&self, sock: Socket, options: &WrapOptions) -> io::Result<SSLSocket> {
        if self.protocol() != PROTOCOL_TLS_SERVER {
            return Err(misconfigured("a context of PROTOCOL_TLS_CLIENT cannot wrap a socket as a server"));
        }
        let peer = peer(&sock, options)?;
        let engine = Engine::server(self)?;
        increment(&self.counters().accept);
        self.finish(sock, engine, true, peer, options)
    }

    /// Wraps a connected socket as a client of `server_hostname` and does the handshake.
    ///
    /// Python: `wrap_socket(sock, server_hostname=…)`. System calls: send(2), recv(2). The name is
    /// a host name or an IP address. The server's certificate must be valid for it, and a host
    /// name is sent to the server (SNI). `None` is allowed only if
    /// [`check_hostname`](Self::check_hostname) is off. The socket's timeout is one deadline for
    /// the whole handshake.
    ///
    /// # Errors
    ///
    /// Returns an error if the handshake fails: see [`do_handshake`](SSLSocket::do_handshake). An
    /// alert is sent to the server and the socket is closed. Returns an error of kind
    /// `InvalidInput` if the name is invalid, if the socket is not a stream socket or if the
    /// context is one for servers, and an error of kind `NotConnected` if the socket is not
    /// connected.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let context = pki::client()?;
    /// # let port = pki::echo()?;
    /// let sock = sock::create_connection(("127.0.0.1", port))?;
    /// let sock = context.wrap_socket_client(sock, "localhost")?;  // server_hostname="localhost"
    /// sock.sendall(b"hello")?;
    /// assert_eq!(sock.recv(1024)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn wrap_socket_client<'a>(
        &self,
        sock: Socket,
        server_hostname: impl Into<Option<&'a str>>,
    ) -> io::Result<SSLSocket> {
        self.wrap_socket_client_with(sock, server_hostname, &WrapOptions::new())
    }

    /// Wraps a connected socket as a client of `server_hostname`, with options.
    ///
    /// See [`wrap_socket_client`](Self::wrap_socket_client).
    ///
    /// # Errors
    ///
    /// Returns an error if [`wrap_socket_client`](Self::wrap_socket_client) would, or
    /// `InvalidInput` if the options contradict the socket's timeout.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let context = pki::client()?;
    /// # let port = pki::echo()?;
    /// use sockssl::WrapOptions;
    ///
    /// let sock = sock::create_connection(("127.0.0.1", port))?;
    /// let options = WrapOptions::new().handshake_timeout(10);
    /// let sock = context.wrap_socket_client_with(sock, "localhost", &options)?;
    /// sock.sendall(b"hello")?;
    /// assert_eq!(sock.recv(1024)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn wrap_socket_client_with<'a>(
        &self,
        sock: Socket,
        server_hostname: impl Into<Option<&'a str>>,
        options: &WrapOptions,
    ) -> io::Result<SSLSocket> {
        if self.protocol() != PROTOCOL_TLS_CLIENT {
            return Err(misconfigured("a context of PROTOCOL_TLS_SERVER cannot wrap a socket as a client"));
        }
        let server_hostname = server_hostname.into();
        let mut peer = peer(&sock, options)?;
        let name = match server_hostname {
            Some(host) => {
                peer = format!("{peer} ({host})");
                ServerName::try_from(host.to_owned())
                    .map_err(|_| invalid(format!("invalid server_hostname '{host}'")))?
            }
            None if self.check_hostname() => {
                return Err(invalid("check_hostname requires server_hostname"));
            }
            // The address is neither sent nor verified. It is the key of the session store.
            None => match sock.getpeername()?.ip() {
                Some(ip) => ServerName::from(ip),
                None => ServerName::from(std::net::IpAddr::from([0, 0, 0, 0])),
            },
        };
        let engine = Engine::client(self, name, server_hostname)?;
        increment(&self.counters().connect);
        self.finish(sock, engine, false, peer, options)
    }

    fn finish(
        &self,
        sock: Socket,
        engine: Engine,
        server_side: bool,
        peer: String,
        options: &WrapOptions,
    ) -> io::Result<SSLSocket> {
        let info = ConnInfo {
            server_side,
            suppress_ragged_eofs: options.suppress_ragged_eofs,
            handshake_timeout: options.handshake_timeout.unwrap_or_default(),
            peer,
            counters: std::sync::Arc::clone(self.counters()),
        };
        let wrapped = SSLSocket::new(sock, engine, info);
        if options.do_handshake_on_connect {
            wrapped.do_handshake()?;
        }
        Ok(wrapped)
    }
}

/// Checks that a socket can be wrapped, and returns the peer's address.
fn peer(sock: &Socket, options: &WrapOptions) -> io::Result<String> {
    if sock.kind() != SOCK_STREAM {
        return Err(invalid("only stream sockets can be wrapped"));
    }
    let nonblocking = sock.gettimeout().is_some_and(|timeout| timeout.is_zero());
    let Ok(handshake_timeout) = options.handshake_timeout else {
        return Err(invalid("handshake_timeout is negative, NaN or too long"));
    };
    if handshake_timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(invalid("handshake_timeout must not be zero (None means the socket's timeout)"));
    }
    if options.do_handshake_on_connect && nonblocking {
        return Err(invalid("do_handshake_on_connect should not be specified for non-blocking sockets"));
    }
    Ok(sock.getpeername()?.to_string())
}
