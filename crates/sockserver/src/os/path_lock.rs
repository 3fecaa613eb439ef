//! The lock under which a server removes the Unix socket of a dead one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags};

use crate::os::bound_path::{FileId, is_shortage};

/// A flock(2) on a file in the directory, which only this user can open, so no other user can hold
/// the lock. The file exists for as long as the lock is held, and a process that is killed releases
/// it. Only system calls on the directory are made under it.
///
/// The directory itself is not locked, because everyone who can read it could hold that lock.
pub(crate) struct PathLock<'a> {
    folder: BorrowedFd<'a>,
    name: String,
    _file: OwnedFd,
}

/// How long to wait for the lock, which is held for some microseconds, unless its holder is stopped.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

impl PathLock<'_> {
    /// Waits for the lock of a directory, for at most [`LOCK_TIMEOUT`].
    ///
    /// Returns `None` if there is no lock: the file belongs to another user, or its holder is
    /// stopped. The caller continues without it, because a removal checks the identity of the file.
    ///
    /// # Errors
    ///
    /// Returns an error if descriptors, memory or locks are exhausted.
    pub(crate) fn wait(folder: &OwnedFd) -> io::Result<Option<PathLock<'_>>> {
        let user = rustix::process::geteuid().as_raw();
        let (folder, name) = (folder.as_fd(), format!(".sockserver-{user}.lock"));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            let file = match fs::openat(folder, &*name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => file,
                Err(error) if is_shortage(error) => return Err(error.into()),
                Err(_) => return Ok(None),
            };
            let stat = fs::fstat(&file)?;
            let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if !is_regular || stat.st_uid != user || stat.st_mode & 0o077 != 0 {
                return Ok(None);
            }
            match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The holder before may have removed the file since it was opened here.
                Ok(()) => {
                    let named = fs::statat(folder, &*name, AtFlags::SYMLINK_NOFOLLOW);
                    if named.is_ok_and(|named| FileId::of(&named) == FileId::of(&stat)) {
                        return Ok(Some(PathLock { folder, name, _file: file }));
                    }
                }
                Err(error) if is_shortage(error) => return Err(error.into()),
                // Not supported, for example by a remote file system.
                Err(error) if io::Error::from(error).kind() != io::ErrorKind::WouldBlock => {
                    return Ok(None);
                }
                Err(_) => {
                    // An error shortens the pause only.
                    let _ = sock::poll(&mut [], Some(Duration::from_millis(1)));
                }
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }
}

/// Removes the file. Those who have opened it notice that when they hold its lock.
impl Drop for PathLock<'_> {
    fn drop(&mut self) {
        // If this fails, the next server uses the file that is left.
        let _ = fs::unlinkat(self.folder, &*self.name, AtFlags::empty());
    }
}
