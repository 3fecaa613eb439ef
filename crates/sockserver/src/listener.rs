//! The sockets a server listens on: made and bound, or taken over.

use std::io;
use std::time::Duration;

use sock::{AF_INET, AF_INET6, Address, AddressError, IPPROTO_IPV6, IPV6_V6ONLY, Socket, SocketKind};

use crate::hooks::ServerHooks;

/// How listeners are made: the builder's class variables about them.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) allow_reuse_address: bool,
    pub(crate) allow_reuse_port: bool,
    pub(crate) ipv6_only: bool,
    pub(crate) request_queue_size: i32,
    pub(crate) unix_mode: Option<u32>,
}

/// A listener, and the name in the file system that is to go with it.
pub(crate) struct Listener {
    /// Dropped before the socket: see [`BoundPath`].
    pub(crate) path: Option<BoundPath>,
    pub(crate) socket: Socket,
    /// Others wait until it listens.
    pub(crate) turn: Option<Turn>,
}

/// Makes a socket and binds it: Python's `server_bind`.
pub(crate) fn bind(
    address: &Address,
    kind: SocketKind,
    options: &Options,
    hooks: &dyn ServerHooks,
) -> io::Result<Listener> {
    let named = |verb| move |error| AddressError::wrap(verb, address, error);
    let socket = Socket::new(address.family(), kind, 0).map_err(named("socket for"))?;
    if options.allow_reuse_address {
        socket.set_reuse_address(true).map_err(named("set_reuse_address on"))?;
    }
    if options.allow_reuse_port {
        socket.set_reuse_port(true).map_err(named("set_reuse_port on"))?;
    }
    if address.family() == AF_INET6 && address.ip().is_some_and(|ip| ip.is_unspecified()) {
        // A system without dual stack serves IPv6 alone.
        let _ = socket.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, options.ipv6_only);
    }
    let turn = Turn::wait(address);
    let bound = hooks.server_bind(&socket, address);
    let bound = bound.or_else(|error| match turn.is_mine() && path::is_stale(address, kind, &error)? {
        true => path::unlink(address).and_then(|()| hooks.server_bind(&socket, address)),
        false => Err(error),
    });
    bound.map_err(named("bind"))?;
    let path = BoundPath::of(address);
    if let (Some(mode), Some(bound)) = (options.unix_mode, &path) {
        bound.set_mode(mode).map_err(named("set the mode of"))?;
    }
    Ok(Listener { path, socket, turn: Some(turn) })
}

/// Gives the listener the deadlines of what it accepts. Whether clients inherit them:
/// TCP on Linux copies the whole socket.
pub(crate) fn inherits_timeouts(
    socket: &Socket,
    receive: Option<Duration>,
    send: Option<Duration>,
) -> bool {
    cfg!(target_os = "linux")
        && [AF_INET, AF_INET6].contains(&socket.family())
        && socket.set_recv_timeout(receive).is_ok()
        && socket.set_send_timeout(send).is_ok()
}

pub(crate) use path::{BoundPath, Turn};

#[cfg(unix)]
mod path {
    use std::fs::{self, File};
    use std::io;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    use sock::{AF_UNIX, Address, Socket, SocketKind};

    use crate::sys;

    /// The path of a Unix socket that was bound here, and the file it was then.
    ///
    /// It goes before its socket is closed: as long as that is open, the file's number
    /// is no other's.
    pub(crate) struct BoundPath {
        path: PathBuf,
        device: u64,
        inode: u64,
    }

    impl BoundPath {
        pub(super) fn of(address: &Address) -> Option<BoundPath> {
            let path = address.path()?.to_owned();
            let file = fs::symlink_metadata(&path).ok()?;
            Some(BoundPath { path, device: file.dev(), inode: file.ino() })
        }

        pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))
        }
    }

    /// Takes the path away, unless it has become another's.
    impl Drop for BoundPath {
        fn drop(&mut self) {
            let _turn = Turn::in_folder_of(&self.path);
            let still_ours = fs::symlink_metadata(&self.path)
                .is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode));
            if still_ours {
                if let Err(error) = fs::remove_file(&self.path) {
                    log::warn!("unlink {}: {error}", self.path.display());
                }
            }
        }
    }

    /// Servers that begin or end in one folder take turns, so that none takes a path
    /// between another's look and its deed, nor that of one which is bound and does not
    /// listen yet. The folder is locked for it (flock(2)): nothing is left behind, not
    /// even by a process that is killed.
    pub(crate) enum Turn {
        Mine {
            _folder: File,
        },
        /// Somebody holds the lock, and does not let go.
        Anothers,
        /// The folder cannot be locked, because it may not be read or is far away.
        Nobodys,
    }

    /// How long to wait for others' turns, which are short.
    const PATIENCE: Duration = Duration::from_secs(1);

    impl Turn {
        pub(super) fn wait(address: &Address) -> Turn {
            address.path().map_or(Turn::Nobodys, Turn::in_folder_of)
        }

        fn in_folder_of(path: &Path) -> Turn {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) else {
                return Turn::Nobodys;
            };
            let until = Instant::now() + PATIENCE;
            loop {
                match sys::try_lock(&folder) {
                    Ok(()) => return Turn::Mine { _folder: folder },
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Turn::Nobodys,
                    Err(_) if Instant::now() >= until => return Turn::Anothers,
                    Err(_) => {
                        let _ = sock::poll(&mut [], Some(Duration::from_millis(1)));
                    }
                }
            }
        }

        /// Whether a path that is stale may be taken.
        pub(super) fn is_mine(&self) -> bool {
            !matches!(self, Turn::Anothers)
        }
    }

    /// Whether the path is taken by a socket that nobody listens on any more: its
    /// server was killed. Only a connect that is refused says so.
    ///
    /// # Errors
    ///
    /// The error of the bind, with its reason, when the path is another thing.
    pub(super) fn is_stale(address: &Address, kind: SocketKind, error: &io::Error) -> io::Result<bool> {
        let Some(path) = address.path().filter(|_| error.kind() == io::ErrorKind::AddrInUse) else {
            return Ok(false);
        };
        // Not through a symbolic link: what it points to is not ours to remove.
        if !fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            return Ok(false);
        }
        let probe = Socket::new(AF_UNIX, kind, 0)?;
        probe.setblocking(false)?;
        let refused =
            probe.connect(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        Ok(refused)
    }

    pub(super) fn unlink(address: &Address) -> io::Result<()> {
        let Some(path) = address.path() else {
            return Ok(());
        };
        log::warn!("{} is a socket without a server: taking its place", path.display());
        fs::remove_file(path)
    }
}

#[cfg(not(unix))]
mod path {
    use std::io;

    use sock::{Address, SocketKind};

    /// Nothing: servers have no paths here.
    pub(crate) struct BoundPath;

    /// Nothing either.
    pub(crate) struct Turn;

    impl Turn {
        pub(super) fn wait(_: &Address) -> Turn {
            Turn
        }

        pub(super) fn is_mine(&self) -> bool {
            true
        }
    }

    impl BoundPath {
        pub(super) fn of(_: &Address) -> Option<BoundPath> {
            None
        }

        pub(super) fn set_mode(&self, _: u32) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    pub(super) fn is_stale(_: &Address, _: SocketKind, _: &io::Error) -> io::Result<bool> {
        Ok(false)
    }

    pub(super) fn unlink(_: &Address) -> io::Result<()> {
        Ok(())
    }
}
