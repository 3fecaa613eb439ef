//! What the programs with TLS share: hooks that make any server one of TLS, and
//! certificates that are read anew on SIGHUP.

// Each program is a crate of its own and uses its part of this.
#![allow(dead_code)]

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sock::{Address, Socket, StreamSocket};
use sockserver::{RequestError, ServerHooks};
use sockssl::{CERT_REQUIRED, Purpose, SSLContext, SSLError, WrapOptions, create_default_context};

/// Makes a server one of TLS: `.hooks(TlsHooks(context))`.
///
/// The handshake runs in the worker: a client that stalls holds nobody else up,
/// and after ten seconds it is closed.
pub(crate) struct TlsHooks(pub(crate) SSLContext);

impl ServerHooks for TlsHooks {
    fn wrap_request(&self, request: Socket) -> io::Result<Box<dyn StreamSocket>> {
        let options = WrapOptions::new().handshake_timeout(Duration::from_secs(10));
        Ok(Box::new(self.0.wrap_socket_server_with(request, &options)?))
    }

    fn handle_error(&self, error: &RequestError, client_address: &Address) {
        // What strangers do to a port in the open is no fault of the server.
        match error {
            RequestError::Failed(cause) if SSLError::of(cause).is_some() => println!("{cause}"),
            _ if error.is_disconnect() => {}
            _ => eprintln!("request from {client_address}: {error}"),
        }
    }
}

/// A server's context with `server.pem` and `server.key` of a directory.
pub(crate) fn server_context(directory: &str) -> io::Result<SSLContext> {
    let context = create_default_context(Purpose::CLIENT_AUTH)?;
    context.load_cert_chain(file(directory, "server.pem"), file(directory, "server.key"))?;
    Ok(context)
}

/// The same, and clients have to show a certificate of the directory's authority.
pub(crate) fn strict_context(directory: &str) -> io::Result<SSLContext> {
    let context = server_context(directory)?;
    context.load_verify_locations(file(directory, "ca.pem"))?;
    context.set_verify_mode(CERT_REQUIRED)?;
    Ok(context)
}

pub(crate) fn file(directory: &str, name: &str) -> PathBuf {
    Path::new(directory).join(name)
}

/// Reads the certificates anew at each SIGHUP; with a fault in one the old stay.
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

/// There is no such signal.
#[cfg(not(unix))]
pub(crate) fn reload_on_sighup(_context: &SSLContext) -> io::Result<()> {
    Ok(())
}
