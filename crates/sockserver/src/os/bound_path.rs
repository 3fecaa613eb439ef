//! The path of a Unix socket: how a stale one is detected, and when it is removed.

use std::ffi::{OsStr, OsString};
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{self, AtFlags, FileType, OFlags, Stat};
use sock::{AF_UNIX, Address, POLLIN, Poll, SOCK_DGRAM, Socket};

use crate::os::log::errno_field;
use crate::os::pair::pair;
use crate::os::path_lock::PathLock;
use crate::os::process::{self, SharedWords};

/// A name in an open directory. The name is looked up there even if the path to the directory
/// changes.
pub(crate) struct DirEntry {
    folder: OwnedFd,
    name: OsString,
    /// The whole path, for log lines.
    path: PathBuf,
}

/// The path of a Unix socket that was bound here, and its file. Dropping it removes the path.
///
/// Drop it before the socket is closed. The inode number is not reused while the socket is open.
pub(crate) struct BoundPath {
    entry: DirEntry,
    file: FileId,
    holders: Holders,
}

/// The processes that have a copy of a [`BoundPath`], because they were forked after bind(2).
struct Holders {
    /// The last process that has begun to serve, 0 if none has, or [`HANDED_OVER`]. They share it.
    server: SharedWords,
    /// Reads end of file when no other process has a copy of the second one.
    alone: Socket,
    open: Option<Socket>,
}

/// Another program serves the path now, and removes it.
const HANDED_OVER: u64 = u64::MAX;

impl Holders {
    fn new() -> io::Result<Holders> {
        let (alone, open) = pair()?;
        Ok(Holders { server: SharedWords::new(1)?, alone, open: Some(open) })
    }

    /// Returns whether this process has to remove the path: the one that serves, and without such
    /// one the last that has a copy.
    fn removes(&mut self) -> bool {
        drop(self.open.take());
        let server = self.server.get(0).load(Ordering::SeqCst);
        if server == HANDED_OVER {
            return false;
        }
        if server == u64::from(std::process::id()) {
            return true;
        }
        if server != 0 && process::is_alive(server) {
            return false;
        }
        // If the system cannot say it, a path that is left is replaced by the next server, but a path
        // that was removed is lost for the process that serves it.
        sock::poll(&mut [Poll::new(&self.alone, POLLIN)], Some(Duration::ZERO)).is_ok_and(|ready| ready > 0)
    }
}

impl BoundPath {
    fn new(file: FileId, entry: DirEntry) -> io::Result<BoundPath> {
        match Holders::new() {
            Ok(holders) => Ok(BoundPath { entry, file, holders }),
            Err(error) => {
                if let Err(error) = entry.remove(file) {
                    log::warn!(
                        path:% = entry.path.display(), errno = errno_field(&error);
                        "cannot remove {}: {error}", entry.path.display()
                    );
                }
                Err(error)
            }
        }
    }

    /// Makes this process the one that removes the path. Called where serving begins.
    pub(crate) fn take_over(&self) {
        if self.holders.server.get(0).load(Ordering::SeqCst) != HANDED_OVER {
            self.holders.server.get(0).store(std::process::id().into(), Ordering::SeqCst);
        }
    }

    /// Makes this process the one that removes the path, after another program has left it.
    pub(crate) fn reclaim(&self) {
        self.holders.server.get(0).store(std::process::id().into(), Ordering::SeqCst);
    }

    pub(crate) fn path(&self) -> &Path {
        self.entry.path()
    }

    /// Returns whether this process serves, and removes the path.
    #[cfg(test)]
    pub(crate) fn is_taken_over(&self) -> bool {
        self.holders.server.get(0).load(Ordering::SeqCst) == u64::from(std::process::id())
    }

    pub(crate) fn file(&self) -> FileId {
        self.file
    }

    /// Removes the path if this process serves it. Does not allocate or log, for a signal handler.
    pub(crate) fn remove_in_signal_handler(&self) {
        let server = self.holders.server.get(0).load(Ordering::SeqCst);
        if server == u64::from(std::process::id()) {
            let _ = self.entry.remove_as(OsStr::from_bytes(&unused_name()), self.file);
        }
    }

    /// Leaves the path in place when this is dropped, in all processes that have a copy.
    pub(crate) fn hand_over(&self) {
        self.holders.server.get(0).store(HANDED_OVER, Ordering::SeqCst);
    }
}

/// The identity of a file: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId(pub(crate) u64, pub(crate) u64);

impl FileId {
    // The types differ from system to system.
    #[allow(clippy::unnecessary_cast)]
    pub(crate) fn of(stat: &Stat) -> FileId {
        FileId(stat.st_dev as u64, stat.st_ino as u64)
    }
}

/// A socket whose server has died.
pub(crate) struct Stale {
    file: FileId,
    /// The inode number is not reused while the file is open.
    #[cfg(target_os = "linux")]
    _held: OwnedFd,
}

/// The flags for opening a directory to look names up in it.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const LOOK_UP: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const LOOK_UP: OFlags = OFlags::RDONLY;

/// With these flags, opening a FIFO fails with `ENOTDIR` instead of blocking.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Returns whether the error is a shortage of descriptors, memory or locks.
pub(crate) fn is_shortage(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOLCK].contains(&error)
}

impl DirEntry {
    /// Opens the directory of the address. Returns `None` if the address is not a path, or one for
    /// which bind(2) will fail.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be opened for lack of descriptors or memory.
    pub(crate) fn of(address: &Address) -> io::Result<Option<DirEntry>> {
        let Some(path) = address.path() else { return Ok(None) };
        let Some(name) = path.file_name() else { return Ok(None) };
        // `name/` and `name/.` are no names of a socket.
        if !path.as_os_str().as_bytes().ends_with(name.as_bytes()) {
            return Ok(None);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        match fs::open(folder.unwrap_or(Path::new(".")), LOOK_UP | DIRECTORY, fs::Mode::empty()) {
            Ok(folder) => Ok(Some(DirEntry { folder, name: name.to_owned(), path: path.to_owned() })),
            Err(error) if is_shortage(error) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Records the file that bind(2) has created. Returns `None` if another file has the name now.
    ///
    /// # Errors
    ///
    /// Returns an error if `mode` is set and the file is not a socket or has more permissions.
    // The type of the mode differs from system to system.
    #[allow(clippy::unnecessary_cast)]
    pub(crate) fn bound(self, mode: Option<u32>) -> io::Result<Option<BoundPath>> {
        let stat = self.stat();
        if let (Err(error), None) = (&stat, mode) {
            log::warn!(
                path:% = self.path.display(), errno = errno_field(error);
                "will not remove {}: {error}", self.path.display()
            );
        }
        let stat = stat.ok().filter(is_socket);
        let (Some(stat), Some(mode)) = (stat, mode) else {
            return match mode {
                Some(_) => Err(io::Error::other("another process has replaced the new socket")),
                None => stat.map(|stat| BoundPath::new(FileId::of(&stat), self)).transpose(),
            };
        };
        let bound = BoundPath::new(FileId::of(&stat), self)?;
        let has = stat.st_mode as u32 & 0o7777;
        if has & !mode != 0 {
            let sentence = format!("the path has mode {has:o}, expected {mode:o}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, sentence));
        }
        if has != mode {
            // Caused by a default ACL of the directory, or a `server_bind` that calls bind(2) itself.
            log::warn!(
                path:% = bound.entry.path.display();
                "{} has mode {has:o}, expected {mode:o}", bound.entry.path.display()
            );
        }
        Ok(Some(bound))
    }

    /// Records the file of a listener of another process, which removes it until it is reclaimed.
    pub(crate) fn adopted(self, file: FileId) -> io::Result<BoundPath> {
        let adopted = BoundPath { entry: self, file, holders: Holders::new()? };
        adopted.hand_over();
        Ok(adopted)
    }

    /// Returns the file if it is a socket whose server has died.
    ///
    /// A connect(2) of a datagram socket finds this out without a connection. A live datagram
    /// socket accepts it or refuses it with `EPERM`, and a live socket of another type fails it with
    /// `EPROTOTYPE`, also between bind(2) and listen(2). Only a dead one fails it with
    /// `ECONNREFUSED` (`unix_find_bsd` in the kernel's net/unix/af_unix.c, `unp_connectat` in
    /// FreeBSD's sys/kern/uipc_usrreq.c, `unp_connect` in XNU's bsd/kern/uipc_usrreq.c).
    pub(crate) fn stale(&self) -> io::Result<Option<Stale>> {
        // A symbolic link is not followed, because its target must not be removed.
        #[cfg(target_os = "linux")]
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        #[cfg(target_os = "linux")]
        let held = match fs::openat(&self.folder, &self.name, flags, fs::Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            held => held?,
        };
        #[cfg(target_os = "linux")]
        let (stat, probed) = (fs::fstat(&held)?, format!("/proc/self/fd/{}", held.as_raw_fd()));
        #[cfg(not(target_os = "linux"))]
        let (stat, probed) = (self.stat()?, String::new());
        if !is_socket(&stat) {
            return Ok(None);
        }
        let probe = Socket::new(AF_UNIX, SOCK_DGRAM, 0)?;
        probe.setblocking(false)?;
        let through = |path: &Path| probe.connect(path).map_err(|error| error.kind());
        // Connect to the open file if /proc is mounted, else to the path.
        let connected = match through(Path::new(&probed)) {
            Err(io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => through(&self.path),
            connected => connected,
        };
        Ok((connected == Err(io::ErrorKind::ConnectionRefused)).then(|| Stale {
            file: FileId::of(&stat),
            #[cfg(target_os = "linux")]
            _held: held,
        }))
    }

    /// Removes the file if it is a socket whose server has died.
    ///
    /// Several servers may find the same dead socket. The lock is held from the check to the
    /// removal, so that none of them removes the socket that another one has bound in between.
    pub(crate) fn remove_stale(&self) -> io::Result<bool> {
        let _lock = PathLock::wait(&self.folder)?;
        self.stale()?.map_or(Ok(false), |stale| self.remove(stale.file))
    }

    /// Removes the name if it refers to `file`. Returns whether it did.
    pub(crate) fn remove(&self, file: FileId) -> io::Result<bool> {
        let aside = unused_name();
        match self.remove_as(OsStr::from_bytes(&aside), file)? {
            Removal::Removed => return Ok(true),
            Removal::OtherFile => {}
            Removal::NotRenamedBack(error) => {
                let aside = String::from_utf8_lossy(&aside);
                log::warn!(
                    path:% = self.path.display(), errno = errno_field(&error);
                    "cannot rename {aside} back to {}: {error}", self.path.display()
                );
            }
        }
        Ok(false)
    }

    /// unlink(2) removes any file with the name. So the file is first renamed to a unique name and
    /// checked there. Does not allocate or log, because a signal handler calls it: rustix has short
    /// names on the stack.
    fn remove_as(&self, aside: &OsStr, file: FileId) -> io::Result<Removal> {
        let is = |name: &OsStr| {
            let stat = fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW);
            stat.is_ok_and(|stat| FileId::of(&stat) == file)
        };
        if !is(&self.name) {
            return Ok(Removal::OtherFile);
        }
        #[cfg(test)]
        tests::run_before_rename();
        fs::renameat(&self.folder, &self.name, &self.folder, aside)?;
        if is(aside) {
            fs::unlinkat(&self.folder, aside, AtFlags::empty())?;
            return Ok(Removal::Removed);
        }
        // Another file had the name. It gets the name back, unless a third file has it by now.
        let back = fs::linkat(&self.folder, aside, &self.folder, &self.name, AtFlags::empty())
            .and_then(|()| fs::unlinkat(&self.folder, aside, AtFlags::empty()));
        Ok(back.map_or_else(|error| Removal::NotRenamedBack(error.into()), |()| Removal::OtherFile))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

/// What a removal has done.
enum Removal {
    Removed,
    /// Another file has the name.
    OtherFile,
    /// So it has, and it did not get the name back.
    NotRenamedBack(io::Error),
}

const NAME_PREFIX: &[u8; 12] = b".sockserver-";

/// Returns a random name. Does not allocate.
fn unused_name() -> [u8; NAME_PREFIX.len() + 16] {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one((std::process::id(), Instant::now()));
    let mut name = [0; NAME_PREFIX.len() + 16];
    let (prefix, digits) = name.split_at_mut(NAME_PREFIX.len());
    prefix.copy_from_slice(NAME_PREFIX);
    for (place, digit) in digits.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(random >> (60 - 4 * place)) as usize & 15];
    }
    name
}

/// Removes the path, unless another file has the name now or another process serves it.
impl Drop for BoundPath {
    fn drop(&mut self) {
        if !self.holders.removes() {
            return;
        }
        // Without a lock: the socket is still open, so no other server takes its path for a stale one.
        if let Err(error) = self.entry.remove(self.file) {
            log::warn!(
                path:% = self.entry.path.display(), errno = errno_field(&error);
                "cannot remove {}: {error}", self.entry.path.display()
            );
        }
    }
}

/// Calls `act` before this thread removes a path the next time.
#[cfg(test)]
pub(crate) fn before_next_removal(act: impl FnOnce() + 'static) {
    tests::BEFORE_RENAME.set(Some(Box::new(act)));
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    thread_local! {
        pub(super) static BEFORE_RENAME: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
    }

    /// Runs what a test sets as the action of another process between check and removal.
    pub(super) fn run_before_rename() {
        if let Some(act) = BEFORE_RENAME.take() {
            act();
        }
    }

    fn bound_at(path: &Path) -> (Socket, DirEntry) {
        let socket = Socket::new(AF_UNIX, sock::SOCK_STREAM, 0).unwrap();
        socket.bind(path).unwrap();
        let address = socket.getsockname().unwrap();
        (socket, DirEntry::of(&address).unwrap().unwrap())
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            let folder = std::env::temp_dir().join(OsStr::from_bytes(&unused_name()));
            std::fs::create_dir(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_that_takes_the_name_before_the_removal_is_kept() {
        let folder = Folder::new();
        let path = folder.0.join("socket");
        let (_socket, entry) = bound_at(&path);
        let file = FileId::of(&entry.stat().unwrap());
        let taken = path.clone();
        before_next_removal(move || {
            std::fs::remove_file(&taken).unwrap();
            std::fs::write(&taken, "other file").unwrap();
        });
        assert!(!entry.remove(file).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "other file");
        assert_eq!(names(&folder.0), ["socket"], "the directory has other files");
    }

    #[test]
    fn a_name_is_removed_in_its_directory_even_if_the_path_leads_elsewhere() {
        let (folder, other) = (Folder::new(), Folder::new());
        let inside = folder.0.join("inside");
        std::fs::create_dir(&inside).unwrap();
        let (_socket, entry) = bound_at(&inside.join("socket"));
        let bound = entry.bound(None).unwrap().unwrap();
        // The directory is renamed and replaced by a symbolic link to another.
        std::fs::rename(&inside, folder.0.join("moved")).unwrap();
        std::os::unix::fs::symlink(&other.0, &inside).unwrap();
        std::fs::hard_link(folder.0.join("moved/socket"), other.0.join("socket")).unwrap();
        assert_eq!(std::fs::symlink_metadata(inside.join("socket")).unwrap().ino(), bound.file.1);
        drop(bound);
        assert_eq!(names(&other.0), ["socket"]);
        assert!(names(&folder.0.join("moved")).is_empty());
    }
}
