//! Putting TLS on a socket.

use std::io;
use std::time::Duration;

use rustls_pki_types::ServerName;
use sock::{SOCK_STREAM, Socket};

use crate::conn::engine::Engine;
use crate::conn::socket::{ConnInfo, SSLSocket};
use crate::context::SSLContext;
use crate::error::{invalid, misconfigured};
use crate::names::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER};
use crate::stats::count;

/// How a socket is wrapped. Python: the keyword arguments of `wrap_socket`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sockssl::WrapOptions;
///
/// let options = WrapOptions::new().handshake_timeout(Duration::from_secs(10));
/// ```
#[derive(Clone, Debug)]
pub struct WrapOptions {
    do_handshake_on_connect: bool,
    suppress_ragged_eofs: bool,
    handshake_timeout: Option<Duration>,
}

impl Default for WrapOptions {
    fn default() -> Self {
        WrapOptions { do_handshake_on_connect: true, suppress_ragged_eofs: false, handshake_timeout: None }
    }
}

impl WrapOptions {
    /// The defaults: handshake at once, a cut is an error, the socket's timeout.
    #[must_use]
    pub fn new() -> WrapOptions {
        WrapOptions::default()
    }

    /// Whether to shake hands while wrapping; otherwise with the first call that
    /// needs it. By default true. Python: `do_handshake_on_connect`.
    #[must_use]
    pub fn do_handshake_on_connect(mut self, at_once: bool) -> Self {
        self.do_handshake_on_connect = at_once;
        self
    }

    /// Whether a connection that is cut, without a close_notify, reads as an end
    /// of file instead of an error. By default false, since whoever can cut could
    /// shorten what was said. Python: `suppress_ragged_eofs`, by default true.
    #[must_use]
    pub fn suppress_ragged_eofs(mut self, suppress: bool) -> Self {
        self.suppress_ragged_eofs = suppress;
        self
    }

    /// A deadline for the handshake alone, in place of the socket's timeout; the
    /// latter counts again after it. `None`, the default, for the socket's own; zero
    /// is refused. Non-blocking sockets do not heed it. Python: none.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handshake_timeout = timeout.into();
        self
    }
}

/// Wrapping sockets.
impl SSLContext {
    /// Takes an accepted socket over, as a server, and shakes hands.
    ///
    /// Python: `wrap_socket(sock, server_side=True)`. System calls: recv(2),
    /// send(2). The socket's timeout is one deadline for the whole handshake.
    ///
    /// # Errors
    ///
    /// Those of [`do_handshake`](SSLSocket::do_handshake), with the socket closed
    /// and the client told by an alert; [`NoCertificateAssigned`](crate::Reason::NoCertificateAssigned)
    /// and [`BadConfiguration`](crate::Reason::BadConfiguration) before anything is
    /// sent; `NotConnected`; `InvalidInput` for a socket or a context that cannot
    /// be meant.
    pub fn wrap_socket_server(&self, sock: Socket) -> io::Result<SSLSocket> {
        self.wrap_socket_server_with(sock, &WrapOptions::new())
    }

    /// [`wrap_socket_server`](Self::wrap_socket_server) with options.
    ///
    /// # Errors
    ///
    /// Those of [`wrap_socket_server`](Self::wrap_socket_server).
    pub fn wrap_socket_server_with(&self, sock: Socket, options: &WrapOptions) -> io::Result<SSLSocket> {
        if self.protocol() != PROTOCOL_TLS_SERVER {
            return Err(misconfigured("a context of PROTOCOL_TLS_CLIENT cannot wrap a server's socket"));
        }
        let peer = peer(&sock, options)?;
        let engine = Engine::server(self)?;
        count(&self.counters().accept);
        self.finish(sock, engine, true, peer, options)
    }

    /// Takes a connected socket over, as a client of `server_hostname`, and shakes
    /// hands. The certificate must be for this name, which the server hears too (SNI).
    ///
    /// Python: `wrap_socket(sock, server_hostname=…)`. System calls: send(2),
    /// recv(2). The name is a host's or an IP address; `None` only where
    /// [`check_hostname`](Self::check_hostname) is off. The socket's timeout is one
    /// deadline for the whole handshake.
    ///
    /// # Errors
    ///
    /// Those of [`do_handshake`](SSLSocket::do_handshake), with the socket closed
    /// and the server told by an alert; `InvalidInput` for a name that cannot be
    /// one, a socket or a context that cannot be meant; `NotConnected`.
    pub fn wrap_socket_client<'a>(
        &self,
        sock: Socket,
        server_hostname: impl Into<Option<&'a str>>,
    ) -> io::Result<SSLSocket> {
        self.wrap_socket_client_with(sock, server_hostname, &WrapOptions::new())
    }

    /// [`wrap_socket_client`](Self::wrap_socket_client) with options.
    ///
    /// # Errors
    ///
    /// Those of [`wrap_socket_client`](Self::wrap_socket_client).
    pub fn wrap_socket_client_with<'a>(
        &self,
        sock: Socket,
        server_hostname: impl Into<Option<&'a str>>,
        options: &WrapOptions,
    ) -> io::Result<SSLSocket> {
        if self.protocol() != PROTOCOL_TLS_CLIENT {
            return Err(misconfigured("a context of PROTOCOL_TLS_SERVER cannot wrap a client's socket"));
        }
        let server_hostname = server_hostname.into();
        let mut peer = peer(&sock, options)?;
        let name = match server_hostname {
            Some(host) => {
                peer = format!("{peer} ({host})");
                ServerName::try_from(host.to_owned())
                    .map_err(|_| invalid(format!("server_hostname '{host}' is no host's name")))?
            }
            None if self.check_hostname() => {
                return Err(invalid("check_hostname requires server_hostname"));
            }
            // Not sent, and not checked; sessions of the address are found by it.
            None => match sock.getpeername()?.ip() {
                Some(ip) => ServerName::from(ip),
                None => ServerName::from(std::net::IpAddr::from([0, 0, 0, 0])),
            },
        };
        let engine = Engine::client(self, name, server_hostname)?;
        count(&self.counters().connect);
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
        let role = ConnInfo {
            server_side,
            suppress_ragged_eofs: options.suppress_ragged_eofs,
            handshake_timeout: options.handshake_timeout,
            peer,
            counters: std::sync::Arc::clone(self.counters()),
        };
        let wrapped = SSLSocket::new(sock, engine, role);
        if options.do_handshake_on_connect {
            wrapped.do_handshake()?;
        }
        Ok(wrapped)
    }
}

/// The peer's address, of a socket that can be wrapped.
fn peer(sock: &Socket, options: &WrapOptions) -> io::Result<String> {
    if sock.kind() != SOCK_STREAM {
        return Err(invalid("only stream sockets can be wrapped"));
    }
    let nonblocking = sock.gettimeout().is_some_and(|timeout| timeout.is_zero());
    if options.handshake_timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(invalid(
            "handshake_timeout leaves no time for a handshake: None is the socket's own timeout",
        ));
    }
    if options.do_handshake_on_connect && nonblocking {
        return Err(invalid("do_handshake_on_connect should not be specified for non-blocking sockets"));
    }
    Ok(sock.getpeername()?.to_string())
}
