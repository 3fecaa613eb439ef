//! The sockets that a server listens on.

use std::io;
use std::time::Duration;

use sock::{AF_INET, AF_INET6, Address, AddressError, IPPROTO_IPV6, IPV6_V6ONLY, Socket, SocketKind};

use crate::os::bound_path::{BoundPath, DirEntry, DirLock};
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
    /// Held until the socket listens.
    pub(crate) turn: Option<DirLock>,
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
        // A system without dual stack serves IPv6 only.
        if options.ipv6_only {
            set.map_err(named("set IPV6_V6ONLY on"))?;
        }
    }
    if options.unix_mode.is_some() && address.path().is_none() {
        let sentence = "only a path has a mode, not an abstract name";
        return Err(named("set the mode of")(io::Error::new(io::ErrorKind::InvalidInput, sentence)));
    }
    let place = DirEntry::of(address).map_err(named("open the directory of"))?;
    let turn = DirLock::wait(place.as_ref()).map_err(named("lock the directory of"))?;
    let bound = bind_to_path(&socket, address, kind, options, hooks, place.as_ref(), &turn);
    bound.map_err(named("bind"))?;
    let path = match (place, options.unix_mode) {
        (Some(place), mode) => place.bound(mode).map_err(named("bind"))?,
        (None, None) => None,
        (None, Some(_)) => {
            let cause = io::Error::other("cannot open its directory");
            return Err(named("check the mode of")(cause));
        }
    };
    Ok(Listener { path, socket, turn: Some(turn) })
}

/// Binds the socket. A path gets its mode, and replaces a socket whose server has died.
fn bind_to_path(
    socket: &Socket,
    address: &Address,
    kind: SocketKind,
    options: &Options,
    hooks: &dyn ServerHooks,
    place: Option<&DirEntry>,
    turn: &DirLock,
) -> io::Result<()> {
    let mode = options.unix_mode.map(|mode| unix_bind::Mode::of(socket, mode));
    let bind = || unix_bind::with_mode(mode, || hooks.server_bind(socket, address));
    match (bind(), place) {
        (Err(error), Some(place)) if error.kind() == io::ErrorKind::AddrInUse && turn.is_held() => {
            let Some(stale) = place.stale(kind)? else { return Err(error) };
            log::warn!("removing stale socket {}", place.path().display());
            if place.remove(stale)? { bind() } else { Err(error) }
        }
        (bound, _) => bound,
    }
}

/// Sets `write_timeout` on a listener. Returns whether accepted sockets inherit it: TCP on Linux
/// copies the whole socket.
pub(crate) fn set_inherited_write_timeout(socket: &Socket, send: Option<Duration>) -> bool {
    cfg!(target_os = "linux")
        && [AF_INET, AF_INET6].contains(&socket.family())
        && socket.set_send_timeout(send).is_ok()
}
