//! Python's [`ssl`](https://docs.python.org/3/library/ssl.html) module for Rust:
//! TLS on the sockets of [`sock`], with Python's names and the safest defaults,
//! by rustls.
//!
//! | Python | here |
//! | --- | --- |
//! | `ssl.create_default_context()` | [`create_default_context`]`(Purpose::SERVER_AUTH)` |
//! | `ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)` | [`create_default_context`]`(Purpose::CLIENT_AUTH)` |
//! | `context.load_cert_chain(cert, key)` | [the same](SSLContext::load_cert_chain) |
//! | `context.wrap_socket(sock, server_side=True)` | [`context.wrap_socket_server(sock)`](SSLContext::wrap_socket_server) |
//! | `context.wrap_socket(sock, server_hostname=name)` | [`context.wrap_socket_client(sock, name)`](SSLContext::wrap_socket_client) |
//! | `except ssl.SSLError as e: e.reason` | [`SSLError::of`]`(&error)`, [`reason`](SSLError::reason) |
//!
//! # Tour: context, wrap, talk
//!
//! ```
//! use std::thread;
//! use sockssl::{PROTOCOL_TLS_CLIENT, Purpose, SSLContext, create_default_context};
//!
//! # let directory = std::env::temp_dir().join(format!("sockssl-tour-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! # let (cert_pem, key_pem) = (directory.join("cert.pem"), directory.join("key.pem"));
//! # let key = rcgen::KeyPair::generate().unwrap();
//! # let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
//! # std::fs::write(&cert_pem, params.self_signed(&key).unwrap().pem())?;
//! # std::fs::write(&key_pem, key.serialize_pem())?;
//! # let ca_pem = cert_pem.clone();
//! // Context: who we are, and whom we trust. Made once, for many connections.
//! let server_context = create_default_context(Purpose::CLIENT_AUTH)?;
//! server_context.load_cert_chain(cert_pem, key_pem)?;
//!
//! // For servers of the world it would be create_default_context(Purpose::SERVER_AUTH),
//! // which trusts the system's authorities; this one trusts ours.
//! let client_context = SSLContext::new(PROTOCOL_TLS_CLIENT);
//! client_context.load_verify_locations(ca_pem)?;
//!
//! // Wrap: a connected socket is taken over, and hands are shaken.
//! let listener = sock::create_server(("127.0.0.1", 0))?;
//! let port = listener.getsockname()?.port().unwrap();
//! let server = thread::spawn(move || -> std::io::Result<()> {
//!     let (sock, _address) = listener.accept()?;
//!     let sock = server_context.wrap_socket_server(sock)?;
//!     let data = sock.recv(1024)?;
//!     sock.sendall(&data)?;
//!     sock.close()
//! });
//! let sock = sock::create_connection(("127.0.0.1", port))?;
//! let sock = client_context.wrap_socket_client(sock, "localhost")?;
//!
//! // Talk: as on any socket.
//! sock.sendall(b"Hello, world!")?;
//! assert_eq!(sock.recv(1024)?, b"Hello, world!");
//! assert_eq!(sock.version(), Some("TLSv1.3"));
//! assert_eq!(sock.recv(1024)?, b"", "the server said goodbye");
//! server.join().unwrap()?;
//! # std::fs::remove_dir_all(&directory)?;
//! # std::io::Result::Ok(())
//! ```
//!
//! # A server
//!
//! A server of `sockserver` uses TLS through the hook `wrap_request`. The hook runs in the worker,
//! so a client that stalls in its handshake delays no other client.
//!
//! ```text
//! let server = ThreadingTCPServer::builder(|| Echo)
//!     .wrap_request(move |request, _client_address| context.wrap_socket_server(request))
//!     .bind(("127.0.0.1", 8443))?;
//! ```
//!
//! A handler that wants to know who is there finds the [`SSLSocket`] behind its
//! stream by [`SSLSocket::of`]. New certificates are taken up while it serves by
//! [`SSLContext::reload`].
//!
//! # What is checked
//!
//! A client's context demands a certificate of a trusted authority, for the name
//! the server was called by, valid now; that can be switched off by
//! [`set_check_hostname`](SSLContext::set_check_hostname)`(false)` and then
//! [`set_verify_mode`](SSLContext::set_verify_mode)`(CERT_NONE)`, for nothing but
//! trying things out. TLS 1.2 and 1.3 with forward secrecy and authenticated
//! encryption, nothing older. A connection that is cut is an error and no end of
//! file, unless [asked otherwise](WrapOptions::suppress_ragged_eofs).
//!
//! # Errors
//!
//! [`SSLError`] inside [`std::io::Error`], with a [`Reason`] and a sentence that
//! names the file, or the peer and its certificate:
//!
//! ```text
//! TLS handshake with 127.0.0.1:8443 (localhost): certificate verify failed: certificate has
//! expired, on Jan  5 09:34:43 2018 GMT ("CN=localhost" issued by "CN=Example CA")
//! ```
//!
//! # Features
//!
//! `aws-lc-rs` (default) or `ring` does the cryptography: `default-features = false,
//! features = ["ring"]` is lighter to build, and knows no P-521.
//!
//! # Log levels
//!
//! Target `sockssl`. `debug`: each handshake, with its version and cipher, or why it
//! failed. `warn`: the file of secrets cannot be written. The system calls
//! underneath are `sock`'s: `RUST_LOG=sock=trace,sockssl=debug`.
//!
//! # What this crate does not do
//!
//! No `MemoryBIO`, no choice of ciphers, no old versions, no post-handshake
//! authentication, no DTLS, no OCSP. No async: for that there is tokio-rustls. For
//! one more pair of eyes on certificates: `openssl s_client`.

#![forbid(unsafe_code)]

mod alert;
mod cert;
mod config;
mod conn;
mod context;
mod error;
mod failure;
mod keylog;
mod names;
mod provider;
mod sessions;
mod stats;

pub use alert::*;
pub use cert::{PeerCertificate, cert_time};
pub use conn::socket::SSLSocket;
pub use conn::wrap::WrapOptions;
pub use context::{SSLContext, create_default_context};
pub use error::{Reason, SSLError};
pub use names::*;
pub use stats::SessionStats;
