//! Properties of a connection, and its stream traits.

use std::any::Any;
use std::fmt;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use sock::selectors::FileObject;
use sock::{
    AsFd, BorrowedFd, Lingered, Shutdown, Socket, SocketPair, SocketReader, SocketWriter, StreamSocket,
};

use crate::cert::{Parsed, PeerCertificate};
use crate::conn::socket::SSLSocket;
use crate::constants::{cipher_name, version_name};
use crate::context::SSLContext;
use crate::error::{Reason, SSLError};

/// Properties of a connection. Before the handshake they have no value; none of these methods
/// waits for it.
impl SSLSocket {
    /// Returns the stream as an `SSLSocket`, if it is one. Python: `isinstance`.
    ///
    /// A handler that has a `&dyn StreamSocket` gets the peer's certificate this way.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, _server) = pki::pair()?;
    /// use sock::StreamSocket;
    /// use sockssl::SSLSocket;
    ///
    /// fn is_encrypted(stream: &dyn StreamSocket) -> bool {
    ///     SSLSocket::of(stream).is_some()                  // isinstance(sock, ssl.SSLSocket)
    /// }
    ///
    /// assert!(is_encrypted(&client));
    /// assert!(!is_encrypted(client.socket()));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn of(stream: &dyn StreamSocket) -> Option<&SSLSocket> {
        stream.as_any()?.downcast_ref()
    }

    /// Returns the peer's certificate. Python: `getpeercert()`.
    ///
    /// Returns `None` if the peer sent no certificate, or if the certificate was not verified:
    /// with `CERT_NONE` a certificate proves nothing. Python returns an empty dictionary then.
    ///
    /// # Errors
    ///
    /// Returns an [`SSLError`] with [`BadPem`](Reason::BadPem) if the certificate cannot be parsed.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// // `client` and `server` are the two ends of a connection.
    /// let certificate = client.getpeercert()?.unwrap();    // sock.getpeercert()
    /// assert_eq!(certificate.subject_alt_name[0], ("DNS".to_owned(), "localhost".to_owned()));
    /// assert!(server.getpeercert()?.is_none(), "the client has sent no certificate");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn getpeercert(&self) -> io::Result<Option<PeerCertificate>> {
        if !self.engine.lock().peer_verified() {
            return Ok(None);
        }
        let Some(der) = self.getpeercert_binary() else {
            return Ok(None);
        };
        let parsed = Parsed::from_der(&der)
            .map_err(|error| SSLError::new(Reason::BadPem, format!("the peer's certificate: {error}")))?;
        Ok(Some(parsed.into_peer_certificate()))
    }

    /// Returns the peer's certificate in DER, verified or not. Python: `getpeercert(True)`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, _server) = pki::pair()?;
    /// let der = client.getpeercert_binary().unwrap();      // sock.getpeercert(True)
    /// assert_eq!(der[0], 0x30, "a sequence in DER");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn getpeercert_binary(&self) -> Option<Vec<u8>> {
        let engine = self.engine.lock();
        Some(engine.connection()?.peer_certificates()?.first()?.to_vec())
    }

    /// Returns the protocol version, `"TLSv1.3"` or `"TLSv1.2"`. Python: `version()`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, _server) = pki::pair()?;
    /// assert_eq!(client.version(), Some("TLSv1.3"));       // sock.version()
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn version(&self) -> Option<&'static str> {
        self.engine.lock().connection()?.protocol_version().map(version_name)
    }

    /// Returns the version for `Debug`, which does not wait for another call.
    pub(super) fn version_if_unlocked(&self) -> Option<&'static str> {
        self.engine.try_lock()?.connection()?.protocol_version().map(version_name)
    }

    /// Returns the cipher's OpenSSL name, its protocol and its number of secret bits.
    ///
    /// For example `("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)`. Python: `cipher()`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, _server) = pki::pair()?;
    /// let (name, version, bits) = client.cipher().unwrap();  // sock.cipher()
    /// assert!(name.starts_with("TLS_") && bits >= 128);
    /// assert_eq!(version, "TLSv1.3");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn cipher(&self) -> Option<(&'static str, &'static str, u32)> {
        Some(cipher_name(self.engine.lock().connection()?.negotiated_cipher_suite()?.suite()))
    }

    /// Returns the negotiated application protocol. Python: `selected_alpn_protocol()`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (server_context, client_context) = (pki::server()?, pki::client()?);
    /// server_context.set_alpn_protocols(["http/1.1"])?;
    /// client_context.set_alpn_protocols(["http/1.1"])?;
    /// # let (client, _server) = pki::connect(&client_context, &server_context)?;
    /// // `client` is connected to a server with the other context.
    /// assert_eq!(client.selected_alpn_protocol().as_deref(), Some("http/1.1"));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn selected_alpn_protocol(&self) -> Option<String> {
        let engine = self.engine.lock();
        Some(String::from_utf8_lossy(engine.connection()?.alpn_protocol()?).into_owned())
    }

    /// Returns the server name. Python: `server_hostname`, on clients only.
    ///
    /// On a client it is the name that was passed to `wrap_socket_client`; on a server it is the
    /// name in the ClientHello.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// assert_eq!(client.server_hostname().as_deref(), Some("localhost"));
    /// assert_eq!(server.server_hostname().as_deref(), Some("localhost"));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn server_hostname(&self) -> Option<String> {
        self.engine.lock().server_name().map(str::to_owned)
    }

    /// Returns whether the handshake resumed an earlier session. Python: `session_reused`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (server_context, client_context) = (pki::server()?, pki::client()?);
    /// # let (client, server) = pki::connect(&client_context, &server_context)?;
    /// // The first connection of a context. Its session tickets arrive with the first data.
    /// assert!(!client.session_reused());
    /// server.sendall(b"hello")?;
    /// client.recv(1024)?;
    /// # let (client, server) = pki::connect(&client_context, &server_context)?;
    /// // The second one:
    /// assert!(client.session_reused());                    // sock.session_reused
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn session_reused(&self) -> bool {
        self.engine.lock().is_resumed()
    }

    /// Returns whether this is the server's side. Python: `server_side`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// assert!(server.server_side());                       // sock.server_side
    /// assert!(!client.server_side());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn server_side(&self) -> bool {
        self.info.server_side
    }

    /// Returns the context, which the SNI callback may have changed. Python: `context`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, _server) = pki::pair()?;
    /// let context = client.context();                      // sock.context
    /// assert_eq!(context.protocol(), sockssl::PROTOCOL_TLS_CLIENT);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn context(&self) -> SSLContext {
        self.engine.lock().context().clone()
    }

    /// Returns a buffered reader with a buffer of 8192 bytes. Python: `makefile('rb')`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// // `client` and `server` are the two ends of a connection.
    /// server.sendall(b"one\ntwo\n")?;
    /// let mut rfile = client.makefile_rb();                // rfile = sock.makefile("rb")
    /// assert_eq!(rfile.readline(100)?, b"one\n");
    /// assert_eq!(rfile.readline(100)?, b"two\n");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn makefile_rb(&self) -> SocketReader<'_> {
        SocketReader::new(self, sock::DEFAULT_BUFFER_SIZE)
    }

    /// Returns a buffered writer with a buffer of 8192 bytes. Python: `makefile('wb')`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// use std::io::Write;
    ///
    /// // `client` and `server` are the two ends of a connection.
    /// let mut wfile = client.makefile_wb();                // wfile = sock.makefile("wb")
    /// write!(wfile, "hello ")?;
    /// write!(wfile, "world")?;
    /// wfile.flush()?;
    /// assert_eq!(server.recv(1024)?, b"hello world");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn makefile_wb(&self) -> SocketWriter<'_> {
        SocketWriter::new(self, sock::DEFAULT_BUFFER_SIZE)
    }

    /// Returns a buffered reader and writer. Python: `makefile('rwb')`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// use std::io::Write;
    ///
    /// // `client` and `server` are the two ends of a connection.
    /// server.sendall(b"ready\n")?;
    /// let mut file = client.makefile_rwb();                // file = sock.makefile("rwb")
    /// assert_eq!(file.reader.readline(100)?, b"ready\n");
    /// file.writer.write_all(b"hello")?;
    /// file.writer.flush()?;
    /// assert_eq!(server.recv(1024)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn makefile_rwb(&self) -> SocketPair<'_> {
        SocketPair { reader: self.makefile_rb(), writer: self.makefile_wb() }
    }
}

impl StreamSocket for SSLSocket {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        SSLSocket::recv_into(self, buffer)
    }

    fn recv_into_nowait(&self, buffer: &mut [u8]) -> io::Result<usize> {
        SSLSocket::recv_into_nowait(self, buffer)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        SSLSocket::send(self, data)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        SSLSocket::shutdown(self, how)
    }

    fn socket(&self) -> &Socket {
        SSLSocket::socket(self)
    }

    fn pending(&self) -> usize {
        SSLSocket::pending(self)
    }

    fn flush(&self) -> io::Result<()> {
        SSLSocket::flush(self)
    }

    fn has_buffered_input(&self) -> bool {
        SSLSocket::has_buffered_input(self)
    }

    fn is_drained(&self) -> bool {
        SSLSocket::is_drained(self)
    }

    fn linger_for(&self, limit: Duration) -> io::Result<Lingered> {
        self.set_lingered();
        self.socket().linger_for(limit)
    }

    fn set_close_timeout(&self, timeout: Duration) {
        // A timeout that overflows is longer than any other limit.
        if let Some(time) = Instant::now().checked_add(timeout) {
            self.close_by(time);
        }
    }

    fn abort(&self) {
        SSLSocket::abort(self);
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn sendall(&self, data: &[u8]) -> io::Result<()> {
        SSLSocket::sendall(self, data)
    }
}

impl FileObject for SSLSocket {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }

    fn has_buffered_input(&self) -> Option<bool> {
        Some(SSLSocket::has_buffered_input(self))
    }
}

/// Calls [`SSLSocket::recv_into`]; 0 is the end of file.
impl Read for &SSLSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv_into(buffer)
    }
}

/// Calls [`SSLSocket::send`], [`sendall`](SSLSocket::sendall) and [`flush`](SSLSocket::flush).
/// `write!` sends its text in one call.
impl Write for &SSLSocket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data)
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        self.sendall(data)
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        SocketWriter::new(*self, 0).write_fmt(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        SSLSocket::flush(self)
    }
}

/// Calls the implementation for a reference.
impl Read for SSLSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

/// Calls the implementation for a reference.
impl Write for SSLSocket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        (&*self).write_all(data)
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        (&*self).write_fmt(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        SSLSocket::flush(self)
    }
}
