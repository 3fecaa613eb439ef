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
    #[must_use]
    pub fn getpeercert_binary(&self) -> Option<Vec<u8>> {
        let engine = self.engine.lock();
        Some(engine.connection()?.peer_certificates()?.first()?.to_vec())
    }

    /// Returns the protocol version, `"TLSv1.3"` or `"TLSv1.2"`. Python: `version()`.
    #[must_use]
    pub fn version(&self) -> Option<&'static str> {
        self.engine.lock().connection()?.protocol_version().map(version_name)
    }

    /// Returns the cipher's OpenSSL name, its protocol and its number of secret bits.
    ///
    /// For example `("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)`. Python: `cipher()`.
    #[must_use]
    pub fn cipher(&self) -> Option<(&'static str, &'static str, u32)> {
        Some(cipher_name(self.engine.lock().connection()?.negotiated_cipher_suite()?.suite()))
    }

    /// Returns the negotiated application protocol. Python: `selected_alpn_protocol()`.
    #[must_use]
    pub fn selected_alpn_protocol(&self) -> Option<String> {
        let engine = self.engine.lock();
        Some(String::from_utf8_lossy(engine.connection()?.alpn_protocol()?).into_owned())
    }

    /// Returns the server name. Python: `server_hostname`, on clients only.
    ///
    /// On a client it is the name that was passed to `wrap_socket_client`; on a server it is the
    /// name in the ClientHello.
    #[must_use]
    pub fn server_hostname(&self) -> Option<String> {
        self.engine.lock().server_name().map(str::to_owned)
    }

    /// Returns whether the handshake resumed an earlier session. Python: `session_reused`.
    #[must_use]
    pub fn session_reused(&self) -> bool {
        self.engine.lock().is_resumed()
    }

    /// Returns whether this is the server's side. Python: `server_side`.
    #[must_use]
    pub fn server_side(&self) -> bool {
        self.info.server_side
    }

    /// Returns the context, which the SNI callback may have changed. Python: `context`.
    #[must_use]
    pub fn context(&self) -> SSLContext {
        self.engine.lock().context().clone()
    }

    /// Returns a buffered reader with a buffer of 8192 bytes. Python: `makefile('rb')`.
    #[must_use]
    pub fn makefile_rb(&self) -> SocketReader<'_> {
        SocketReader::new(self, sock::DEFAULT_BUFFER_SIZE)
    }

    /// Returns a buffered writer with a buffer of 8192 bytes. Python: `makefile('wb')`.
    #[must_use]
    pub fn makefile_wb(&self) -> SocketWriter<'_> {
        SocketWriter::new(self, sock::DEFAULT_BUFFER_SIZE)
    }

    /// Returns a buffered reader and writer. Python: `makefile('rwb')`.
    #[must_use]
    pub fn makefile_rwb(&self) -> SocketPair<'_> {
        SocketPair { reader: self.makefile_rb(), writer: self.makefile_wb() }
    }
}

impl StreamSocket for SSLSocket {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        SSLSocket::recv_into(self, buffer)
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
