//! The promise: the path has the mode `unix_mode` from its creation, whatever the umask is. No other
//! file gets the mode, whatever other processes do in the directory.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, RawMode};
use rustix::process::{geteuid, umask};
use sock::{Address, Socket};
use sockserver::{
    ServerHooks, UnixDatagramServer, UnixStreamServer, datagram_handler_fn, handler_fn, testing,
};

use crate::Test;
use crate::support::{LIMIT, connect_to, read_to_end, wait_until};

pub(crate) const TESTS: &[Test] = &[
    ("unix_mode_is_set_when_bind_returns", is_set_when_bind_returns),
    ("unix_mode_works_with_other_threads", works_with_other_threads),
    (
        "unix_mode_does_not_change_a_file_that_replaces_the_path",
        does_not_change_a_file_that_replaces_the_path,
    ),
];

/// The attacker, which a test starts as another process.
pub(crate) const HELPERS: &[Test] = &[("unix_mode_attacker", attack)];

const DIRECTORY: &str = "SOCK_TEST_DIRECTORY";

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Records the mode that the path has when bind(2) returns.
struct Looking {
    seen: Arc<AtomicU32>,
    /// Whether to call bind(2) instead of the default hook.
    by_itself: bool,
}

struct Default;

impl ServerHooks for Default {}

impl ServerHooks for Looking {
    fn server_bind(&self, socket: &Socket, address: &Address) -> io::Result<()> {
        if self.by_itself {
            socket.bind(address)?
        } else {
            Default.server_bind(socket, address)?
        }
        self.seen.store(mode_of(address.path().unwrap()), Ordering::Relaxed);
        Ok(())
    }
}

fn is_set_when_bind_returns() {
    let folder = tempfile::tempdir().unwrap();
    // The longest path, which must also work in the child process with another umask.
    let name = "s".repeat(107 - folder.path().as_os_str().len() - 1);
    let path = folder.path().join(name);
    for mask in [0, 0o022, 0o077, 0o777] {
        for mode in [0, 0o600, 0o640, 0o660, 0o666, 0o777] {
            umask(Mode::from_raw_mode(mask as RawMode));
            for by_itself in [false, true] {
                let seen = Arc::new(AtomicU32::new(u32::MAX));
                let hooks = Looking { seen: Arc::clone(&seen), by_itself };
                let server = UnixStreamServer::builder(handler_fn(|_| Ok(()))).hooks(hooks);
                let server = server.unix_mode(mode).bind(&path).unwrap();
                // On Linux a bind(2) in a hook also creates the path with the mode, without the umask's bits.
                let expected = if by_itself { mode & !mask } else { mode };
                let seen = seen.load(Ordering::Relaxed);
                assert_eq!(seen, expected, "{seen:o} instead of {mode:o}, umask {mask:o}, {by_itself}");
                assert_eq!(mode_of(&path), expected, "the mode changed");
                assert_eq!(server.server_address().path(), Some(&*path));
                drop(server);
                assert!(!path.exists());
            }
            let handler = datagram_handler_fn(|_| Ok(()));
            let server = UnixDatagramServer::builder(handler).unix_mode(mode).bind(&path).unwrap();
            assert_eq!(mode_of(&path), mode, "datagrams, umask {mask:o}");
            drop(server);
            let umask_now = umask(Mode::from_raw_mode(mask as RawMode)).as_raw_mode();
            assert_eq!(umask_now, mask as RawMode, "the umask changed");
        }
    }
    // An error of bind(2) in the child process is returned unchanged.
    umask(Mode::from_raw_mode(0o077));
    let absent = folder.path().join("absent/s");
    let make = || UnixStreamServer::builder(handler_fn(|_| Ok(())));
    let (with, without) = (make().unix_mode(0o666).bind(&absent), make().bind(&absent));
    let (with, without) = (with.unwrap_err(), without.unwrap_err());
    assert_eq!((with.kind(), with.to_string()), (without.kind(), without.to_string()));
}

/// Other threads see no other umask, and do not prevent the bind.
fn works_with_other_threads() {
    let folder = tempfile::tempdir().unwrap();
    umask(Mode::from_raw_mode(0o077));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let files = scope.spawn(|| {
            let path = folder.path().join("file");
            let (mut made, end) = (0, Instant::now() + LIMIT);
            while !stop.load(Ordering::Relaxed) && Instant::now() < end {
                fs::write(&path, "a file of another thread").unwrap();
                assert_eq!(mode_of(&path), 0o600);
                fs::remove_file(&path).unwrap();
                made += 1;
            }
            made
        });
        for round in 0..50 {
            let path = folder.path().join(format!("socket {round}"));
            let server = UnixStreamServer::builder(handler_fn(|cx| cx.request.sendall(b"served")));
            let server = testing::serve(server.unix_mode(0o666).bind(&path).unwrap());
            assert_eq!(mode_of(&path), 0o666);
            assert_eq!(read_to_end(&connect_to(server.address())), "served");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(files.join().unwrap() > 0);
    });
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Replaces each socket in the directory by a symbolic link to a file, as fast as possible.
fn attack() {
    let folder = std::path::PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let (path, aside, link) = (folder.join("socket"), folder.join("aside"), folder.join("link"));
    let end = Instant::now() + Duration::from_secs(20);
    fs::write(folder.join("ready"), "").unwrap();
    while Instant::now() < end {
        let _ = symlink(folder.join("../private"), &link);
        if fs::symlink_metadata(&path).is_ok_and(|file| file.file_type().is_socket()) {
            let _ = fs::rename(&path, &aside);
            let _ = fs::rename(&link, &path);
        }
    }
}

fn does_not_change_a_file_that_replaces_the_path() {
    // TMPDIR can be a folder that other users cannot enter.
    let outer = tempfile::tempdir_in("/tmp").unwrap();
    let (folder, private) = (outer.path().join("shared"), outer.path().join("private"));
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(&private, "private").unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();

    // Another user may not have access to the program's directory.
    let program = folder.join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    if geteuid().is_root() {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    let command = command.arg(&program).args(["--alone", "unix_mode_attacker"]).env(DIRECTORY, &folder);
    let mut attacker = Killed(command.spawn().expect("cannot run setpriv(1) of util-linux"));
    wait_until("the attacker has started", || folder.join("ready").exists());

    let path = folder.join("socket");
    let (mut made, mut refused) = (0, 0);
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        // The requested mode is open to all, the mode of the file is not.
        for mode in [0o666, 0o600] {
            let server = UnixStreamServer::builder(handler_fn(|_| Ok(()))).unix_mode(mode).bind(&path);
            match server {
                Ok(server) => {
                    made += 1;
                    drop(server);
                }
                Err(_) => refused += 1,
            }
            assert_eq!(mode_of(&private), 0o600, "after {made} servers");
            let _ = fs::remove_file(&path);
        }
    }
    assert!(made > 0 && refused > 0, "{made} created, {refused} refused: there was no attack");
    assert_eq!(fs::read_to_string(&private).unwrap(), "private");
    assert_eq!(fs::metadata(&private).unwrap().uid(), geteuid().as_raw());
    assert!(attacker.0.try_wait().unwrap().is_none(), "the attacker ended early");
}
