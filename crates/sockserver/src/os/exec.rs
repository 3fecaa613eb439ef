//! Starts a program that inherits listeners, by the protocol of sd_listen_fds(3).

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use sock::Socket;

use crate::os::pair::pair;
use crate::os::process::Pid;

/// The first descriptor that a program inherits: `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;
/// Contains the number of the descriptor of the handover.
const CONTROL: &str = "SOCKSERVER_HANDOVER";
const VARIABLES: [&str; 4] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", CONTROL];
/// Room for `LISTEN_PID=` and the digits of a process id.
const PID_ROOM: usize = 40;
const PID_NAME: &[u8] = b"LISTEN_PID=";

/// Starts a program with the environment of this process. It inherits the listeners from descriptor
/// 3 on, and `control` behind them.
///
/// # Errors
///
/// Returns an error if an argument contains a NUL, and the error of fork(2) or execve(2).
pub(crate) fn spawn(
    program: &Path,
    arguments: &[OsString],
    listeners: &[Socket],
    control: &Socket,
) -> io::Result<Pid> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::from);
    let path = text(program.as_os_str().as_bytes())?;
    let count = listeners.len();
    let mut argv = vec![path.clone()];
    for argument in arguments {
        argv.push(text(argument.as_bytes())?);
    }
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        let is_own = VARIABLES.iter().any(|known| name == OsStr::new(known));
        // The program is to send the heartbeats of this process.
        if !is_own && name != "WATCHDOG_PID" {
            environment.push(text(&[name.as_bytes(), b"=", value.as_bytes()].concat())?);
        }
    }
    let names = vec!["sockserver"; count].join(":");
    environment.push(text(format!("LISTEN_FDS={count}").as_bytes())?);
    environment.push(text(format!("LISTEN_FDNAMES={names}").as_bytes())?);
    environment.push(text(format!("{CONTROL}={}", FIRST + count as RawFd).as_bytes())?);
    // The child writes its process id.
    let mut pid_variable = [0u8; PID_ROOM];
    pid_variable[..PID_NAME.len()].copy_from_slice(PID_NAME);

    let (status, theirs) = pair()?;
    // Above the numbers that the child gives them, so that none is replaced before it is used.
    let high = FIRST + count as RawFd + 1;
    let sockets = listeners.iter().chain([control]);
    let inherited = sockets.map(|socket| duplicate(socket, high)).collect::<io::Result<Vec<_>>>()?;
    let child_status = duplicate(&theirs, high)?;
    drop(theirs);

    let argv = pointers(&argv, None);
    let pid_start = pid_variable.as_mut_ptr();
    let envp = pointers(&environment, Some(pid_start.cast_const().cast()));
    let fds: Vec<RawFd> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
    let child_end = child_status.as_raw_fd();
    // SAFETY: all memory was allocated before and lives until the end of this function. The child
    // makes async-signal-safe calls only (signal-safety(7)), writes into its own copy of
    // `pid_variable`, which has room for any number, and does not return. All signals are blocked, so
    // no handler of this process runs in the child.
    let pid = unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) =
            (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let pid = libc::fork();
        if pid == 0 {
            write_digits(pid_start.add(PID_NAME.len()), libc::getpid());
            run_program(&path, &argv, &envp, &fds, child_end);
        }
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        if pid < 0 { Err(error) } else { Ok(pid) }
    }?;
    drop((inherited, child_status));
    // End of file when the program is executed.
    let mut failure = Vec::new();
    while let Ok(data @ [_, ..]) = status.recv(4).as_deref() {
        failure.extend_from_slice(data);
    }
    let Ok(errno) = <[u8; 4]>::try_from(failure) else { return Ok(pid) };
    // SAFETY: waitpid takes any number, and the status pointer may be null. The child exits.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))
}

/// Returns pointers to texts, with a null pointer at the end.
fn pointers(texts: &[CString], last: Option<*const libc::c_char>) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain(last).chain([ptr::null()]).collect()
}

fn duplicate(socket: &Socket, at_least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open, and the new one is owned by nothing else.
    unsafe {
        match libc::fcntl(socket.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, at_least) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Writes a number and a NUL. Async-signal-safe.
///
/// # Safety
///
/// There must be room for 11 bytes.
unsafe fn write_digits(place: *mut u8, number: Pid) {
    let (mut digits, mut count, mut left) = ([0u8; 10], 0, number);
    while left > 0 || count == 0 {
        digits[count] = b'0' + (left % 10) as u8;
        left /= 10;
        count += 1;
    }
    for (index, digit) in digits[..count].iter().rev().enumerate() {
        // SAFETY: a process id has at most 10 digits, and the caller ensures that there is room.
        unsafe { place.add(index).write(*digit) };
    }
    // SAFETY: see above.
    unsafe { place.add(count).write(0) };
}

/// Executes the program in a forked child. Async-signal-safe.
///
/// # Safety
///
/// `argv` and `envp` must end with a null pointer and point to texts. All signals must be blocked.
unsafe fn run_program(
    path: &CString,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
    fds: &[RawFd],
    status: RawFd,
) -> ! {
    // SAFETY: the calls are async-signal-safe. The descriptors are open in this process and belong to
    // nothing that runs in it.
    unsafe {
        let mut is_ready = true;
        for (index, fd) in fds.iter().enumerate() {
            // Without close-on-exec.
            is_ready &= libc::dup2(*fd, FIRST + index as RawFd) >= 0;
        }
        if is_ready {
            // execve(2) resets handlers. A signal that is pending would run one before.
            for signal in 1..32 {
                let mut action: libc::sigaction = std::mem::zeroed();
                if libc::sigaction(signal, ptr::null(), &mut action) == 0
                    && (action.sa_sigaction != libc::SIG_IGN || signal == libc::SIGPIPE)
                {
                    libc::signal(signal, libc::SIG_DFL);
                }
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::pthread_sigmask(libc::SIG_SETMASK, &none, ptr::null_mut());
            libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
        }
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0).to_ne_bytes();
        libc::write(status, errno.as_ptr().cast(), errno.len());
        libc::_exit(127)
    }
}

/// Whether this process has inherited descriptors from [`spawn`], also after [`inherited`] has returned
/// them.
#[cfg(feature = "systemd")]
pub(crate) fn is_inheritor() -> bool {
    let pid = std::env::var_os("LISTEN_PID").and_then(|pid| parse(pid.into_vec()));
    std::env::var_os(CONTROL).is_some() && pid == Some(std::process::id() as RawFd)
}

/// The descriptors that this process has inherited from [`spawn`]: the listeners, and the control
/// socket. Returns `None` if it has inherited none, and after the first call.
pub(crate) fn inherited() -> io::Result<Option<(Vec<OwnedFd>, OwnedFd)>> {
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name| std::env::var_os(name).map(|value| parse(value.into_vec()));
    let [count, _, pid, control] = VARIABLES.map(number);
    let (Some(control), Some(pid)) = (control, pid) else { return Ok(None) };
    // A child of the process that has inherited them has the variables too.
    if pid != Some(std::process::id() as RawFd) || IS_TAKEN.load(Ordering::SeqCst) {
        return Ok(None);
    }
    let is_valid = |count: &RawFd| (1..=1000).contains(count) && control == Some(FIRST + count);
    let count = count.flatten().filter(is_valid).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("LISTEN_FDS and {CONTROL} do not match"))
    })?;
    let mut fds = Vec::new();
    // SAFETY: fcntl takes any number. It fails if the descriptor is not open.
    if (FIRST..=FIRST + count).any(|fd| unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0) {
        return Err(io::Error::last_os_error());
    }
    if IS_TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(None);
    }
    for fd in FIRST..=FIRST + count {
        // SAFETY: the descriptor is open. By the protocol of sd_listen_fds(3) it was inherited for the
        // code that reads the variables, and this is done once.
        fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    Ok(fds.pop().map(|control| (fds, control)))
}

fn parse(digits: Vec<u8>) -> Option<RawFd> {
    String::from_utf8(digits).ok()?.parse().ok()
}
