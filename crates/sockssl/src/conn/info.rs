//! What a connection tells about itself; and it as a stream.

use std::any::Any;
use std::fmt;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use sock::{Lingered, Shutdown, Socket, SocketPair, SocketReader, SocketWriter, StreamSocket};

use crate::cert::{Parsed, PeerCertificate};
use crate::conn::socket::SSLSocket;
use crate::context::SSLContext;
use crate::error::{Reason, SSLError};
use crate::names::{cipher_name, version_name};

/// What a connection tells about itself. Before the handshake there is nothing
/// to tell; none of these waits for it.
impl SSLSocket {
    /// The `SSLSocket` a stream is, if it is one: how a handler that has a
    /// `&dyn StreamSocket` gets at the peer's certificate. Python: `isinstance`.
    #[must_use]
    pub fn of(stream: &dyn StreamSocket) -> Option<&SSLSocket> {
        stream.as_any()?.downcast_ref()
    }

    /// The peer's certificate; `None` if it showed none, or if nobody judged it:
    /// with `CERT_NONE` a certificate proves nothing, and Python gives an empty
    /// dictionary then.
    ///
    /// Python: `getpeercert()`.
    ///
    /// # Errors
    ///
    /// [`BadPem`](Reason::BadPem) for one that cannot be parsed.
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

    /// The peer's certificate in DER, judged or not. Python: `getpeercert(True)`.
    #[must_use]
    pub fn getpeercert_binary(&self) -> Option<Vec<u8>> {
        let engine = self.engine.lock();
        Some(engine.live()?.peer_certificates()?.first()?.to_vec())
    }

    /// The version that is spoken: `"TLSv1.3"` or `"TLSv1.2"`. Python: `version()`.
    #[must_use]
    pub fn version(&self) -> Option<&'static str> {
        self.engine.lock().live()?.protocol_version().map(version_name)
    }

    /// The cipher by OpenSSL's name, the protocol that defines it, its secret
    /// bits: `("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)`. Python: `cipher()`.
    #[must_use]
    pub fn cipher(&self) -> Option<(&'static str, &'static str, u32)> {
        Some(cipher_name(self.engine.lock().live()?.negotiated_cipher_suite()?.suite()))
    }

    /// The application protocol both sides know best. Python: `selected_alpn_protocol()`.
    #[must_use]
    pub fn selected_alpn_protocol(&self) -> Option<String> {
        let engine = self.engine.lock();
        Some(String::from_utf8_lossy(engine.live()?.alpn_protocol()?).into_owned())
    }

    /// The server's name: of a client the one it called, of a server the one it
    /// was called by. Python: `server_hostname`, of clients alone.
    #[must_use]
    pub fn server_hostname(&self) -> Option<String> {
        self.engine.lock().server_name().map(str::to_owned)
    }

    /// Whether the handshake took up an earlier session. Python: `session_reused`.
    #[must_use]
    pub fn session_reused(&self) -> bool {
        self.engine.lock().is_resumed()
    }

    /// Whether it is the server's side. Python: `server_side`.
    #[must_use]
    pub fn server_side(&self) -> bool {
        self.role.server_side
    }

    /// The context it has, after the callback for server names has chosen. Python: `context`.
    #[must_use]
    pub fn context(&self) -> SSLContext {
        self.engine.lock().context().clone()
    }

    /// Reads it as a file, with a buffer of 8192 bytes. Python: `makefile('rb')`.
    #[must_use]
    pub fn makefile_rb(&self) -> SocketReader<'_> {
        SocketReader::new(self, sock::DEFAULT_BUFFER_SIZE)
    }

    /// Writes it as a file, with a buffer of 8192 bytes. Python: `makefile('wb')`.
    #[must_use]
    pub fn makefile_wb(&self) -> SocketWriter<'_> {
        SocketWriter::new(self, sock::DEFAULT_BUFFER_SIZE)
    }

    /// Reads and writes it as a file. Python: `makefile('rwb')`.
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

    fn linger_for(&self, limit: Duration) -> io::Result<Lingered> {
        self.note_linger();
        self.socket().linger_for(limit)
    }

    fn set_close_timeout(&self, timeout: Duration) {
        // One that cannot be counted is longer than any other limit.
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

/// As [`SSLSocket::recv_into`]: 0 is the end of file.
impl Read for &SSLSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv_into(buffer)
    }
}

/// As [`SSLSocket::send`], [`sendall`](SSLSocket::sendall) and [`flush`](SSLSocket::flush).
/// `write!` sends its text in one piece.
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

/// As that of a reference.
impl Read for SSLSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

/// As that of a reference.
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
