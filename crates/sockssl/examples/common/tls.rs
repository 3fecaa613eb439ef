//! Shared by the TLS programs: a hook that adds TLS to any server, and certificates that are
//! reloaded on SIGHUP.

// Each program is a separate crate, and uses only a part of this module.
#![allow(dead_code)]

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sock::Address;
use sockserver::kind::{Family, Stream};
use sockserver::{Builder, MixIn, RequestError, ServerHooks};
use sockssl::{CERT_REQUIRED, Purpose, SSLContext, SSLError, WrapOptions, create_default_context};

/// Makes a server use TLS.
///
/// The handshake runs in the worker, so a client that stalls does not delay other clients. Its
/// connection is closed after ten seconds.
pub(crate) fn with_tls<F: Family, M: MixIn>(
    builder: Builder<Stream<F>, M>,
    context: SSLContext,
) -> Builder<Stream<F>, M> {
    let options = WrapOptions::new().handshake_timeout(Duration::from_secs(10));
    builder
        .wrap_request(move |request, _client_address| context.wrap_socket_server_with(request, &options))
        .hooks(QuietErrors)
}

struct QuietErrors;

impl ServerHooks for QuietErrors {
    fn handle_error(&self, error: &RequestError, client_address: &Address) {
        // A failed handshake is the client's fault.
        match error {
            RequestError::Failed(cause) if SSLError::of(cause).is_some() => println!("{cause}"),
            _ if error.is_disconnect() => {}
            _ => eprintln!("request from {client_address}: {error}"),
        }
    }
}

/// Returns a server context with `server.pem` and `server.key` of a directory.
pub(crate) fn server_context(directory: &str) -> io::Result<SSLContext> {
    let context = create_default_context(Purpose::CLIENT_AUTH)?;
    context.load_cert_chain(file(directory, "server.pem"), file(directory, "server.key"))?;
    Ok(context)
}

/// Like `server_context`, and requires clients to have a certificate of the directory's authority.
pub(crate) fn strict_context(directory: &str) -> io::Result<SSLContext> {
    let context = server_context(directory)?;
    context.load_verify_locations(file(directory, "ca.pem"))?;
    context.set_verify_mode(CERT_REQUIRED)?;
    Ok(context)
}

pub(crate) fn file(directory: &str, name: &str) -> PathBuf {
    Path::new(directory).join(name)
}

/// Reloads the certificates on each SIGHUP. If one is invalid, the old ones are kept.
#[cfg(unix)]
pub(crate) fn reload_on_sighup(context: &SSLContext) -> io::Result<()> {
    let context = context.clone();
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGHUP])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            match context.reload() {
                Ok(()) => println!("certificates reloaded"),
                Err(error) => println!("certificates kept: {error}"),
            }
        }
    });
    Ok(())
}

/// SIGHUP does not exist on this system.
#[cfg(not(unix))]
pub(crate) fn reload_on_sighup(_context: &SSLContext) -> io::Result<()> {
    Ok(())
}
