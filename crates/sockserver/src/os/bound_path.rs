//! The path of a Unix socket: whose it is, and when it goes.

use std::ffi::{OsStr, OsString};
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, OFlags, Stat};
use sock::{AF_UNIX, Address, Socket, SocketKind};

/// A name in a directory. The directory is held open: whatever becomes of the path to it, the
/// name is looked up in this one.
pub(crate) struct DirEntry {
    folder: OwnedFd,
    name: OsString,
    /// For the log.
    path: PathBuf,
}

/// The path of a Unix socket that was bound here, and the file it was then.
///
/// It goes before its socket is closed: as long as that is open, the file's number
/// is no other's.
pub(crate) struct BoundPath {
    place: DirEntry,
    file: FileId,
}

/// Which file it is: device and inode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    // The types differ from system to system.
    #[allow(clippy::unnecessary_cast)]
    fn of(stat: &Stat) -> FileId {
        FileId(stat.st_dev as u64, stat.st_ino as u64)
    }
}

/// For the descriptor of a directory that names are looked up in.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const LOOK_UP: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const LOOK_UP: OFlags = OFlags::RDONLY;

/// What is no directory, such as a FIFO, fails with `ENOTDIR` and is not waited for.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Whether the system has run out of what opening a file takes.
fn is_shortage(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOLCK].contains(&error)
}

impl DirEntry {
    /// Where the address is; `None` if it is no path, or one that bind(2) is going to fail for.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be opened for want of descriptors or memory.
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

    /// Takes note of the file that bind(2) has created; `None` if another has its name by now.
    ///
    /// # Errors
    ///
    /// Returns an error if a mode was asked for, and the file there is none of ours or is open to
    /// more than that.
    // The type of the mode differs from system to system.
    #[allow(clippy::unnecessary_cast)]
    pub(crate) fn bound(self, mode: Option<u32>) -> io::Result<Option<BoundPath>> {
        let stat = self.stat().ok().filter(is_socket);
        let (Some(stat), Some(mode)) = (stat, mode) else {
            return match mode {
                Some(_) => Err(io::Error::other("another process has taken the name of the new socket")),
                None => Ok(stat.map(|stat| BoundPath { file: FileId::of(&stat), place: self })),
            };
        };
        let bound = BoundPath { file: FileId::of(&stat), place: self };
        let has = stat.st_mode as u32 & 0o7777;
        if has & !mode != 0 {
            let sentence = format!("its mode is {has:o}, which is more than {mode:o} allows");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, sentence));
        }
        if has != mode {
            // A default ACL of the directory does so, or a `server_bind` with its own bind(2).
            log::warn!("the mode of {} is {has:o} instead of {mode:o}", bound.place.path.display());
        }
        Ok(Some(bound))
    }

    /// The socket there, if nobody listens on it any more: its server was killed. Only a
    /// connect that is refused says so. `None` if it is another thing.
    pub(crate) fn stale(&self, kind: SocketKind) -> io::Result<Option<FileId>> {
        // Held open, its number is no other's. Not through a symbolic link: what that points to
        // is not ours to remove.
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
        // Of the file that is held, where /proc is there to name it.
        let connected = match through(Path::new(&probed)) {
            Err(io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => through(&self.path),
            connected => connected,
        };
        Ok((connected == Err(io::ErrorKind::ConnectionRefused)).then(|| FileId::of(&stat)))
    }

    /// Removes the name if it is that file's. Returns whether it was.
    ///
    /// unlink(2) removes whatever has the name. So the file is moved aside, where no other
    /// process takes its place, and looked at there before it goes.
    pub(crate) fn remove(&self, file: FileId) -> io::Result<bool> {
        let is = |name: &OsStr| {
            let stat = fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW);
            stat.is_ok_and(|stat| FileId::of(&stat) == file)
        };
        if !is(&self.name) {
            return Ok(false);
        }
        #[cfg(test)]
        tests::in_between();
        let aside = unused_name();
        fs::renameat(&self.folder, &self.name, &self.folder, &aside)?;
        if is(aside.as_ref()) {
            fs::unlinkat(&self.folder, &aside, AtFlags::empty())?;
            return Ok(true);
        }
        // Another had it in between, and gets it back, unless there is one more by now.
        let back = fs::linkat(&self.folder, &aside, &self.folder, &self.name, AtFlags::empty())
            .and_then(|()| fs::unlinkat(&self.folder, &aside, AtFlags::empty()));
        if let Err(error) = back {
            log::warn!("rename {aside} back to {}: {error}", self.path.display());
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

/// A name that nothing has, as far as chance goes.
fn unused_name() -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one((std::process::id(), Instant::now()));
    format!(".sockserver-{random:016x}")
}

/// Removes the path, unless it has become another's.
impl Drop for BoundPath {
    fn drop(&mut self) {
        let _turn = DirLock::lock_dir_of(&self.place);
        if let Err(error) = self.place.remove(self.file) {
            log::warn!("unlink {}: {error}", self.place.path.display());
        }
    }
}

/// Servers that begin or end in one folder take turns, so that none takes a path
/// between another's look and its deed, nor that of one which is bound and does not
/// listen yet. The folder is locked for it (flock(2)): nothing is left behind, not
/// even by a process that is killed.
pub(crate) enum DirLock {
    Held {
        _folder: OwnedFd,
    },
    /// Somebody holds the lock, and does not let go.
    Contended,
    /// The folder cannot be locked, because it may not be read or is far away.
    Unavailable,
}

/// How long to wait for others' turns, which are short.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

impl DirLock {
    /// # Errors
    ///
    /// Returns an error if the directory cannot be locked for want of descriptors, memory or locks.
    pub(crate) fn wait(place: Option<&DirEntry>) -> io::Result<DirLock> {
        place.map_or(Ok(DirLock::Unavailable), DirLock::lock_dir_of)
    }

    fn lock_dir_of(place: &DirEntry) -> io::Result<DirLock> {
        let folder = match fs::openat(&place.folder, ".", OFlags::RDONLY | DIRECTORY, fs::Mode::empty()) {
            Ok(folder) => folder,
            Err(error) if is_shortage(error) => return Err(error.into()),
            Err(_) => return Ok(DirLock::Unavailable),
        };
        let until = Instant::now() + LOCK_TIMEOUT;
        loop {
            match fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(DirLock::Held { _folder: folder }),
                Err(error) if is_shortage(error) => return Err(error.into()),
                Err(error) if io::Error::from(error).kind() != io::ErrorKind::WouldBlock => {
                    return Ok(DirLock::Unavailable);
                }
                Err(_) if Instant::now() >= until => return Ok(DirLock::Contended),
                Err(_) => {
                    let _ = sock::poll(&mut [], Some(Duration::from_millis(1)));
                }
            }
        }
    }

    /// Whether a path that is stale may be taken.
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
        static IN_BETWEEN: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
    }

    /// What another process does between a look at a name and its removal.
    pub(super) fn in_between() {
        if let Some(act) = IN_BETWEEN.take() {
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
    fn what_takes_the_name_before_the_removal_stays() {
        let folder = Folder::new();
        let path = folder.0.join("socket");
        let (_socket, place) = bound_at(&path);
        let file = FileId::of(&place.stat().unwrap());
        let taken = path.clone();
        IN_BETWEEN.set(Some(Box::new(move || {
            std::fs::remove_file(&taken).unwrap();
            std::fs::write(&taken, "another's").unwrap();
        })));
        assert!(!place.remove(file).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another's");
        assert_eq!(names(&folder.0), ["socket"], "nothing else is left");
    }

    #[test]
    fn a_name_is_removed_in_its_directory_wherever_the_path_leads_by_then() {
        let (folder, other) = (Folder::new(), Folder::new());
        let inside = folder.0.join("inside");
        std::fs::create_dir(&inside).unwrap();
        let (_socket, place) = bound_at(&inside.join("socket"));
        let bound = place.bound(None).unwrap().unwrap();
        // The directory is moved, and a link to another put there.
        std::fs::rename(&inside, folder.0.join("moved")).unwrap();
        std::os::unix::fs::symlink(&other.0, &inside).unwrap();
        std::fs::hard_link(folder.0.join("moved/socket"), other.0.join("socket")).unwrap();
        assert_eq!(std::fs::symlink_metadata(inside.join("socket")).unwrap().ino(), bound.file.1);
        drop(bound);
        assert_eq!(names(&other.0), ["socket"]);
        assert!(names(&folder.0.join("moved")).is_empty());
    }
}
