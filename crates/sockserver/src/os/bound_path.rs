//! The path of a Unix socket: how a stale one is detected, and when it is removed.

use std::ffi::{OsStr, OsString};
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, OFlags, Stat};
use sock::{AF_UNIX, Address, Socket, SocketKind};

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
}

/// The identity of a file: device and inode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    // The types differ from system to system.
    #[allow(clippy::unnecessary_cast)]
    fn of(stat: &Stat) -> FileId {
        FileId(stat.st_dev as u64, stat.st_ino as u64)
    }
}

/// The flags for opening a directory to look names up in it.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const LOOK_UP: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const LOOK_UP: OFlags = OFlags::RDONLY;

/// With these flags, opening a FIFO fails with `ENOTDIR` instead of blocking.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Returns whether the error is a shortage of descriptors, memory or locks.
fn is_shortage(error: rustix::io::Errno) -> bool {
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
        let stat = self.stat().ok().filter(is_socket);
        let (Some(stat), Some(mode)) = (stat, mode) else {
            return match mode {
                Some(_) => Err(io::Error::other("another process has replaced the new socket")),
                None => Ok(stat.map(|stat| BoundPath { file: FileId::of(&stat), entry: self })),
            };
        };
        let bound = BoundPath { file: FileId::of(&stat), entry: self };
        let has = stat.st_mode as u32 & 0o7777;
        if has & !mode != 0 {
            let sentence = format!("the path has mode {has:o}, expected {mode:o}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, sentence));
        }
        if has != mode {
            // Caused by a default ACL of the directory, or a `server_bind` that calls bind(2) itself.
            log::warn!("{} has mode {has:o}, expected {mode:o}", bound.entry.path.display());
        }
        Ok(Some(bound))
    }

    /// Returns the file if it is a socket without a listener, whose server was killed.
    ///
    /// A socket is stale if connect(2) is refused. Returns `None` for anything else.
    pub(crate) fn stale(&self, kind: SocketKind) -> io::Result<Option<FileId>> {
        // The inode number is not reused while the file is open. A symbolic link is not followed,
        // because its target must not be removed.
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
        let probe = Socket::new(AF_UNIX, kind, 0)?;
        probe.setblocking(false)?;
        let through = |path: &Path| probe.connect(path).map_err(|error| error.kind());
        // Connect to the open file if /proc is mounted, else to the path.
        let connected = match through(Path::new(&probed)) {
            Err(io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => through(&self.path),
            connected => connected,
        };
        Ok((connected == Err(io::ErrorKind::ConnectionRefused)).then(|| FileId::of(&stat)))
    }

    /// Removes the name if it refers to `file`. Returns whether it did.
    ///
    /// unlink(2) removes any file with the name. So the file is first renamed to a unique name and
    /// checked there.
    pub(crate) fn remove(&self, file: FileId) -> io::Result<bool> {
        let is = |name: &OsStr| {
            let stat = fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW);
            stat.is_ok_and(|stat| FileId::of(&stat) == file)
        };
        if !is(&self.name) {
            return Ok(false);
        }
        #[cfg(test)]
        tests::run_before_rename();
        let aside = unused_name();
        fs::renameat(&self.folder, &self.name, &self.folder, &aside)?;
        if is(aside.as_ref()) {
            fs::unlinkat(&self.folder, &aside, AtFlags::empty())?;
            return Ok(true);
        }
        // Another file had the name. It gets the name back, unless a third file has it by now.
        let back = fs::linkat(&self.folder, &aside, &self.folder, &self.name, AtFlags::empty())
            .and_then(|()| fs::unlinkat(&self.folder, &aside, AtFlags::empty()));
        if let Err(error) = back {
            log::warn!("cannot rename {aside} back to {}: {error}", self.path.display());
        }
        Ok(false)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

/// Returns a random name.
fn unused_name() -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one((std::process::id(), Instant::now()));
    format!(".sockserver-{random:016x}")
}

/// Removes the path, unless another file has the name now.
impl Drop for BoundPath {
    fn drop(&mut self) {
        let _lock = DirLock::lock_dir_of(&self.entry);
        if let Err(error) = self.entry.remove(self.file) {
            log::warn!("cannot remove {}: {error}", self.entry.path.display());
        }
    }
}

/// A lock on a directory (flock(2)), held while a server binds to or removes a path in it.
///
/// It prevents that a path is replaced between check and removal, and that a socket which is bound
/// but does not listen yet is taken for a stale one. A process that is killed releases the lock.
pub(crate) enum DirLock {
    Held {
        _folder: OwnedFd,
    },
    /// Another process holds the lock for longer than [`LOCK_TIMEOUT`].
    Contended,
    /// The directory cannot be locked, because it is not readable or on a remote file system.
    Unavailable,
}

/// How long to wait for the lock, which is held for a short time only.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

impl DirLock {
    /// Waits for the lock of the entry's directory.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be locked for lack of descriptors, memory or locks.
    pub(crate) fn wait(entry: Option<&DirEntry>) -> io::Result<DirLock> {
        entry.map_or(Ok(DirLock::Unavailable), DirLock::lock_dir_of)
    }

    fn lock_dir_of(entry: &DirEntry) -> io::Result<DirLock> {
        let folder = match fs::openat(&entry.folder, ".", OFlags::RDONLY | DIRECTORY, fs::Mode::empty()) {
            Ok(folder) => folder,
            Err(error) if is_shortage(error) => return Err(error.into()),
            Err(_) => return Ok(DirLock::Unavailable),
        };
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(DirLock::Held { _folder: folder }),
                Err(error) if is_shortage(error) => return Err(error.into()),
                Err(error) if io::Error::from(error).kind() != io::ErrorKind::WouldBlock => {
                    return Ok(DirLock::Unavailable);
                }
                Err(_) if Instant::now() >= deadline => return Ok(DirLock::Contended),
                Err(_) => {
                    let _ = sock::poll(&mut [], Some(Duration::from_millis(1)));
                }
            }
        }
    }

    /// Returns whether a stale path may be replaced.
    pub(crate) fn is_held(&self) -> bool {
        !matches!(self, DirLock::Contended)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    thread_local! {
        static BEFORE_RENAME: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
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
            let folder = std::env::temp_dir().join(unused_name());
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
        BEFORE_RENAME.set(Some(Box::new(move || {
            std::fs::remove_file(&taken).unwrap();
            std::fs::write(&taken, "other file").unwrap();
        })));
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
