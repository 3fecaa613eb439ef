//! Provides Python's [`ssl`](https://docs.python.org/3/library/ssl.html) module for Rust: TLS
//! on the sockets of [`sock`], with Python's names and secure defaults, on top of rustls.
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
//! # Tour: create a context, wrap a socket, exchange data
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
//! // A context contains the certificate and the trusted authorities for many connections.
//! let server_context = create_default_context(Purpose::CLIENT_AUTH)?;
//! server_context.load_cert_chain(cert_pem, key_pem)?;
//!
//! // create_default_context(Purpose::SERVER_AUTH) would trust the system's authorities. This
//! // context trusts one authority only.
//! let client_context = SSLContext::new(PROTOCOL_TLS_CLIENT);
//! client_context.load_verify_locations(ca_pem)?;
//!
//! // Wrapping a connected socket does the handshake.
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
//! // The wrapped socket is used like any other socket.
//! sock.sendall(b"Hello, world!")?;
//! assert_eq!(sock.recv(1024)?, b"Hello, world!");
//! assert_eq!(sock.version(), Some("TLSv1.3"));
//! assert_eq!(sock.recv(1024)?, b"", "the server closed the connection");
//! server.join().unwrap()?;
//! # std::fs::remove_dir_all(&directory)?;
//! # std::io::Result::Ok(())
//! ```
//!
//! # A server
//!
//! `sockserver` and `sockssl` do not depend on each other. The hook `wrap_request` of
//! `sockserver` connects them. It runs in the worker, so a client that stalls in its handshake
//! does not delay other clients.
//!
//! ```text
//! let server = ThreadingTCPServer::builder(|| Echo)
//!     .wrap_request(move |request, _client_address| context.wrap_socket_server(request))
//!     .bind(("127.0.0.1", 8443))?;
//! ```
//!
//! The server's `wrap_timeout`, 10 s by default, bounds the handshake. In a program without
//! `sockserver`, set [`WrapOptions::handshake_timeout`] or the socket's timeout.
//!
//! In a handler, [`SSLSocket::of`] returns the [`SSLSocket`] of the connection, which has the client's
//! certificate. [`SSLContext::reload`] loads renewed certificates while the server runs.
//!
//! # What is verified
//!
//! A client context requires a certificate that a trusted authority issued for the server name
//! and that is valid now. [`set_check_hostname`](SSLContext::set_check_hostname)`(false)` and then
//! [`set_verify_mode`](SSLContext::set_verify_mode)`(CERT_NONE)` disable this, which is for
//! tests only. TLS 1.2 and 1.3 are supported, with forward secrecy and authenticated encryption.
//! A connection that ends without a close_notify is an error and not an end of file, unless
//! [`suppress_ragged_eofs`](WrapOptions::suppress_ragged_eofs) is set.
//!
//! # Errors
//!
//! A TLS error is an [`SSLError`] inside a [`std::io::Error`]. It has a [`Reason`] and a sentence
//! that names the file, or the peer and its certificate:
//!
//! ```text
//! TLS handshake with 127.0.0.1:8443 (localhost): certificate verify failed: certificate has
//! expired, on Jan  5 09:34:43 2018 GMT ("CN=localhost" issued by "CN=Example CA")
//! ```
//!
//! # Features
//!
//! | feature | default | effect |
//! | --- | --- | --- |
//! | `aws-lc-rs` | on | uses the cryptography of `aws-lc-rs`, which needs a C compiler to build |
//! | `ring` | off | uses the cryptography of `ring`, which builds faster and has no P-521 |
//!
//! One of them is required. If both are on, `aws-lc-rs` is used. `default-features = false,
//! features = ["ring"]` selects `ring`.
//!
//! # Guide, examples and other crates
//!
//! - [Porting](sock::guide::porting) shows Python and Rust side by side, and
//!   [differences](sock::guide::differences) lists what behaves differently on purpose, with the
//!   rules for certificate chains.
//! - Examples: [an echo server][echo_tls], [a page for a browser][https_page], [client
//!   certificates][mtls_whoami], [a client][tls_client], and [a private authority][make_ca].
//! - [`sock`] is Python's `socket`, on which this crate is built, and [`sockserver`] is
//!   `socketserver`. [`sockdiag`] lists the sockets of the system, and [`socklens`] shows calls and
//!   packets in lessons.
//!
//! # Log levels
//!
//! The target is `sockssl`. `debug`: each handshake, with its version and cipher or its error.
//! `warn`: the key log file cannot be written, other users can access it, or the keys of session
//! tickets cannot be created. `sock` logs the system calls underneath:
//! `RUST_LOG=sock=trace,sockssl=debug`.
//!
//! # What this crate does not do
//!
//! There is no `MemoryBIO`, no choice of ciphers, no version before TLS 1.2, no post-handshake
//! authentication, no DTLS and no OCSP. There is no async API; use tokio-rustls for that. Use
//! `openssl s_client` to inspect a server's certificates.
//!
#![cfg_attr(docsrs, doc = "[`sockserver`]: https://docs.rs/sockserver")]
#![cfg_attr(not(docsrs), doc = "[`sockserver`]: ../sockserver/index.html")]
#![cfg_attr(docsrs, doc = "[`sockdiag`]: https://docs.rs/sockdiag")]
#![cfg_attr(not(docsrs), doc = "[`sockdiag`]: ../sockdiag/index.html")]
#![cfg_attr(docsrs, doc = "[`socklens`]: https://docs.rs/socklens")]
#![cfg_attr(not(docsrs), doc = "[`socklens`]: ../socklens/index.html")]
#![cfg_attr(docsrs, doc = "[echo_tls]: https://docs.rs/crate/sockssl/latest/source/examples/echo_tls.rs")]
#![cfg_attr(not(docsrs), doc = "[echo_tls]: ../../../crates/sockssl/examples/echo_tls.rs")]
#![cfg_attr(
    docsrs,
    doc = "[https_page]: https://docs.rs/crate/sockssl/latest/source/examples/https_page.rs"
)]
#![cfg_attr(not(docsrs), doc = "[https_page]: ../../../crates/sockssl/examples/https_page.rs")]
#![cfg_attr(
    docsrs,
    doc = "[mtls_whoami]: https://docs.rs/crate/sockssl/latest/source/examples/mtls_whoami.rs"
)]
#![cfg_attr(not(docsrs), doc = "[mtls_whoami]: ../../../crates/sockssl/examples/mtls_whoami.rs")]
#![cfg_attr(
    docsrs,
    doc = "[tls_client]: https://docs.rs/crate/sockssl/latest/source/examples/tls_client.rs"
)]
#![cfg_attr(not(docsrs), doc = "[tls_client]: ../../../crates/sockssl/examples/tls_client.rs")]
#![cfg_attr(docsrs, doc = "[make_ca]: https://docs.rs/crate/sockssl/latest/source/examples/make_ca.rs")]
#![cfg_attr(not(docsrs), doc = "[make_ca]: ../../../crates/sockssl/examples/make_ca.rs")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

mod alert;
mod cert;
mod cert_time;
mod config;
mod conn;
mod constants;
mod context;
mod error;
mod keylog;
mod provider;
mod sessions;
mod stats;

pub use alert::*;
pub use cert::PeerCertificate;
pub use cert_time::cert_time;
pub use conn::socket::SSLSocket;
pub use conn::wrap::WrapOptions;
pub use constants::*;
pub use context::{SSLContext, create_default_context};
pub use error::{Reason, SSLError};
pub use stats::SessionStats;
