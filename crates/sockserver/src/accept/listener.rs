//! The sockets that a server listens on.

use std::io;
use std::time::Duration;

use sock::{AF_INET, AF_INET6, Address, AddressError, IPPROTO_IPV6, IPV6_V6ONLY, Socket, SocketKind};

use crate::os::batch;
use crate::os::bound_path::{BoundPath, DirEntry};
use crate::os::unix_bind;
use crate::request::hooks::ServerHooks;

/// The options of listeners.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) allow_reuse_address: bool,
    pub(crate) allow_reuse_port: bool,
    pub(crate) ipv6_only: bool,
    pub(crate) request_queue_size: i32,
    pub(crate) unix_mode: Option<u32>,
}

/// A listener, and its path in the file system.
pub(crate) struct Listener {
    /// Dropped before the socket: see [`BoundPath`].
    pub(crate) path: Option<BoundPath>,
    pub(crate) socket: Socket,
}

/// Creates a socket and binds it. Python: `server_bind`.
pub(crate) fn bind(
    address: &Address,
    kind: SocketKind,
    options: &Options,
    hooks: &dyn ServerHooks,
) -> io::Result<Listener> {
    let named = |verb| move |error| io::Error::from(AddressError::new(verb, address, error));
    let socket = Socket::new(address.family(), kind, 0).map_err(named("socket for"))?;
    if options.allow_reuse_address {
        socket.set_reuse_address(true).map_err(named("set_reuse_address on"))?;
    }
    if options.allow_reuse_port {
        socket.set_reuse_port(true).map_err(named("set_reuse_port on"))?;
    }
    if address.family() == AF_INET6 && address.ip().is_some_and(|ip| ip.is_unspecified()) {
        let set = socket.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, options.ipv6_only);
        set.map_err(named("set IPV6_V6ONLY on"))?;
    }
    if options.unix_mode.is_some() && address.path().is_none() {
        let sentence = "only a path has a mode, not an abstract name";
        return Err(named("set the mode of")(io::Error::new(io::ErrorKind::InvalidInput, sentence)));
    }
    let place = DirEntry::of(address).map_err(named("open the directory of"))?;
    let bound = bind_to_path(&socket, address, options, hooks, place.as_ref());
    bound.map_err(|error| named(bind_verb(&error, address, kind, options))(error))?;
    let path = match (place, options.unix_mode) {
        (Some(place), mode) => place.bound(mode).map_err(named("bind"))?,
        (None, None) => None,
        (None, Some(_)) => {
            let cause = io::Error::other("cannot open its directory");
            return Err(named("check the mode of")(cause));
        }
    };
    Ok(Listener { path, socket })
}

/// Returns what failed. After a restart, connections of the previous server that are in TIME_WAIT
/// occupy a port, unless the option is set.
fn bind_verb(error: &io::Error, address: &Address, kind: SocketKind, options: &Options) -> &'static str {
    let is_busy = error.kind() == io::ErrorKind::AddrInUse;
    let is_tcp = address.path().is_none() && kind == sock::SOCK_STREAM;
    let may_help = cfg!(unix) && is_busy && is_tcp && !options.allow_reuse_address;
    if may_help {
        "bind (allow_reuse_address(true) binds a port with connections in TIME_WAIT)"
    } else {
        "bind"
    }
}

/// Binds the socket. A path gets its mode, and replaces a socket whose server has died.
fn bind_to_path(
    socket: &Socket,
    address: &Address,
    options: &Options,
    hooks: &dyn ServerHooks,
    place: Option<&DirEntry>,
) -> io::Result<()> {
    let mode = options.unix_mode.map(|mode| unix_bind::Mode::of(socket, mode));
    let bind = || unix_bind::with_mode(mode, || hooks.server_bind(socket, address));
    match (bind(), place) {
        (Err(error), Some(place)) if error.kind() == io::ErrorKind::AddrInUse => {
            if place.stale()?.is_none() {
                return Err(error);
            }
            log::warn!(path:% = place.path().display(); "removing stale socket {}", place.path().display());
            place.remove_stale()?;
            bind()
        }
        (bound, _) => bound,
    }
}

/// Requests the address that each datagram is sent to, if the socket is bound to all addresses:
/// the system would choose the source of an answer, and a client ignores an answer from another
/// address. Returns whether datagrams have it.
pub(crate) fn request_packet_info(socket: &Socket, address: &Address) -> io::Result<bool> {
    let named = |error| AddressError::new("request the destination of datagrams to", address, error);
    // A hook may have bound the socket to another address.
    match socket.getsockname().map_err(named)?.ip() {
        Some(ip) if ip.is_unspecified() => Ok(batch::request_packet_info(socket).map_err(named)?),
        _ => Ok(false),
    }
}

/// Sets `write_timeout` on a listener. Returns whether accepted sockets inherit it: TCP on Linux
/// copies the whole socket. After an error it is set on each connection, whose request fails if
/// that is refused too.
pub(crate) fn set_inherited_write_timeout(socket: &Socket, send: Option<Duration>) -> bool {
    cfg!(target_os = "linux")
        && [AF_INET, AF_INET6].contains(&socket.family())
        && socket.set_send_timeout(send).is_ok()
}
