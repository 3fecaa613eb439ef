//! ptrace(2): what the tracer of a watched program calls.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;

use rustix::process::{
    Resource, Rlimit, Signal, getpid, getrlimit, set_parent_process_death_signal, setrlimit,
};
use seccompiler::{BpfProgram, apply_filter};

/// What a thread of a watched program reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It has ended with this exit status.
    Exited(i32),
    /// It was ended by this signal.
    Killed(i32),
    /// It is at the entry of a call of the filter.
    Entry,
    /// It is at the exit of a call.
    Exit,
    /// It has started this process or thread.
    Started(i32),
    /// It runs another program. It had this identity before.
    Executed(i32),
    /// It is stopped, as by SIGSTOP.
    Stopped,
    /// It receives this signal once it runs again.
    Signal(i32),
    /// It can run on.
    Other,
}

/// A call at its entry or exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallInfo {
    Entry {
        number: u64,
        args: [u64; 6],
    },
    /// A negative number is an error.
    Exit(i64),
}

/// How a thread runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// To the next call of the filter.
    Entry,
    /// To the exit of the call at whose entry it is.
    Exit,
}

/// Requests of linux/ptrace.h, whose type differs between C libraries.
const CONT: u32 = 7;
const SYSCALL: u32 = 24;
const GETEVENTMSG: u32 = 0x4201;
const SEIZE: u32 = 0x4206;
const LISTEN: u32 = 0x4208;
const GET_SYSCALL_INFO: u32 = 0x420e;
/// The event of a stop that is no signal.
const EVENT_STOP: i32 = 128;

/// Makes the calling thread the tracer of a child, and of everything that the child starts. All of
/// them are killed when the tracer ends: without it, the calls of the filter would fail with ENOSYS.
pub(crate) fn seize(process: i32) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL;
    request(SEIZE, process, options as usize)
}

/// A request whose last argument is a number.
fn request(request: u32, thread: i32, data: usize) -> io::Result<()> {
    let nothing: *mut libc::c_void = ptr::null_mut();
    // SAFETY: the requests of this module that come here read and write no memory of the caller.
    let result = unsafe { libc::ptrace(request as _, thread, nothing, data) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a thread run on, with a signal unless it is 0.
pub(crate) fn resume(thread: i32, until: Until, signal: i32) -> io::Result<()> {
    let how = match until {
        Until::Entry => CONT,
        Until::Exit => SYSCALL,
    };
    request(how, thread, signal as usize)
}

/// Leaves a thread stopped until SIGCONT.
pub(crate) fn stay_stopped(thread: i32) -> io::Result<()> {
    request(LISTEN, thread, 0)
}

/// Returns the number that belongs to an event.
fn message(thread: i32) -> i32 {
    let mut number: libc::c_ulong = 0;
    let nothing: *mut libc::c_void = ptr::null_mut();
    // SAFETY: the request writes an unsigned long, and the variable lives during the call.
    let result = unsafe { libc::ptrace(GETEVENTMSG as _, thread, nothing, &raw mut number) };
    if result == -1 { 0 } else { i32::try_from(number).unwrap_or_default() }
}

/// Returns the call at whose entry or exit a thread is.
pub(crate) fn call_info(thread: i32) -> io::Result<CallInfo> {
    // struct ptrace_syscall_info: the kind, the architecture, two addresses, and a union.
    let mut info = [0_u64; 11];
    let size = size_of_val(&info);
    // SAFETY: the kernel writes at most `size` bytes, and the array lives during the call.
    let result = unsafe { libc::ptrace(GET_SYSCALL_INFO as _, thread, size, info.as_mut_ptr()) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    let [first, _, _, rest @ ..] = info;
    match first.to_ne_bytes()[0] {
        // The entry of a call, and a stop of seccomp.
        1 | 3 => {
            let [number, args @ .., _] = rest;
            Ok(CallInfo::Entry { number, args })
        }
        2 => Ok(CallInfo::Exit(rest[0] as i64)),
        _ => Err(io::Error::other("the thread is not at a call")),
    }
}

/// Returns the thread of which [`next_report`] would report, and whether it has ended.
fn peek() -> Option<(i32, bool)> {
    let options = libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all bytes of a siginfo_t may be 0.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let states = libc::WEXITED | libc::WSTOPPED;
    // SAFETY: the call writes a siginfo_t, and the variable lives during it.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options | states) };
    // SAFETY: waitid(2) sets this field, and without a report it is still 0.
    let thread = unsafe { info.si_pid() };
    let has_ended = [libc::CLD_EXITED, libc::CLD_KILLED, libc::CLD_DUMPED].contains(&info.si_code);
    (result == 0 && thread != 0).then_some((thread, has_ended))
}

/// Returns the next report to the calling thread, without waiting. The end of a process of
/// `starting` is left to the thread that starts it, which waits for it if the program cannot run.
pub(crate) fn next_report(starting: &[i32]) -> io::Result<Option<(i32, Report)>> {
    let mut wanted = -1;
    if !starting.is_empty() {
        match peek() {
            Some((thread, true)) if starting.contains(&thread) => return Ok(None),
            Some((thread, _)) => wanted = thread,
            None => return Ok(None),
        }
    }
    let mut status = 0;
    let options = libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG;
    // SAFETY: the call writes an int, and the variable lives during it.
    let thread = unsafe { libc::waitpid(wanted, &raw mut status, options) };
    if thread <= 0 {
        let error = io::Error::last_os_error();
        let is_none = thread == 0 || error.raw_os_error() == Some(libc::ECHILD);
        return if is_none { Ok(None) } else { Err(error) };
    }
    if libc::WIFEXITED(status) {
        return Ok(Some((thread, Report::Exited(libc::WEXITSTATUS(status)))));
    }
    if libc::WIFSIGNALED(status) {
        return Ok(Some((thread, Report::Killed(libc::WTERMSIG(status)))));
    }
    let signal = libc::WSTOPSIG(status);
    let report = match status >> 16 {
        libc::PTRACE_EVENT_SECCOMP => Report::Entry,
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
            Report::Started(message(thread))
        }
        libc::PTRACE_EVENT_EXEC => Report::Executed(message(thread)),
        EVENT_STOP if signal != libc::SIGTRAP => Report::Stopped,
        0 if signal == libc::SIGTRAP | 0x80 => Report::Exit,
        0 => Report::Signal(signal),
        _ => Report::Other,
    };
    Ok(Some((thread, report)))
}

/// Reads memory of a thread that is stopped, up to the first byte that cannot be read.
pub(crate) fn read_memory(thread: i32, address: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    let own = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: length };
    let theirs = libc::iovec { iov_base: ptr::without_provenance_mut(address as usize), iov_len: length };
    // SAFETY: the kernel writes at most `length` bytes into `data`, and only reads from the other
    // process, whose addresses it checks.
    let count = unsafe { libc::process_vm_readv(thread, &raw const own, 1, &raw const theirs, 1, 0) };
    data.truncate(usize::try_from(count).unwrap_or_default());
    data
}

/// Writes memory of a thread that is stopped.
pub(crate) fn write_memory(thread: i32, address: u64, data: &[u8]) {
    let own = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let theirs =
        libc::iovec { iov_base: ptr::without_provenance_mut(address as usize), iov_len: data.len() };
    // SAFETY: the kernel only reads from `data`, and writes into the other process, whose addresses
    // it checks.
    unsafe { libc::process_vm_writev(thread, &raw const own, 1, &raw const theirs, 1, 0) };
}

/// A register of the calls of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    FirstArgument,
    FourthArgument,
    Result,
}

impl Register {
    /// The place in struct user_regs_struct.
    fn place(self) -> usize {
        let is_x86 = cfg!(target_arch = "x86_64");
        match self {
            Register::FirstArgument => {
                if is_x86 {
                    14
                } else {
                    0
                }
            }
            Register::FourthArgument => {
                if is_x86 {
                    7
                } else {
                    3
                }
            }
            Register::Result => {
                if is_x86 {
                    10
                } else {
                    0
                }
            }
        }
    }
}

/// Replaces a register of a thread that is at the entry or exit of a call.
pub(crate) fn set_register(thread: i32, register: Register, value: u64) -> io::Result<()> {
    const GETREGSET: u32 = 0x4204;
    const SETREGSET: u32 = 0x4205;
    /// struct user_regs_struct of the largest architecture.
    const REGISTERS: usize = 34;
    let mut registers = [0_u64; REGISTERS];
    let mut part =
        libc::iovec { iov_base: registers.as_mut_ptr().cast(), iov_len: size_of_val(&registers) };
    for request in [GETREGSET, SETREGSET] {
        // SAFETY: the kernel reads and writes at most as many bytes of the array as the vector has,
        // and sets the length of the vector to those of the registers.
        let result = unsafe { libc::ptrace(request as _, thread, libc::NT_PRSTATUS, &raw mut part) };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        registers[register.place()] = value;
    }
    Ok(())
}

/// Starts a program with the filter. The new process sends its identity over `tracer` and waits for
/// a byte, so that it is traced before it runs the program. If this process ends before, it ends. The
/// program can open at most `descriptors`, and no more than it could without this.
pub(crate) fn start(
    mut command: Command,
    tracer: UnixStream,
    filter: BpfProgram,
    descriptors: u64,
) -> io::Result<Child> {
    let limits = getrlimit(Resource::Nofile);
    let lower = |limit: Option<u64>| Some(limit.map_or(descriptors, |limit| limit.min(descriptors)));
    let limits = Rlimit { current: lower(limits.current), maximum: lower(limits.maximum) };
    let prepare = move || {
        setrlimit(Resource::Nofile, limits)?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let mut tracer = &tracer;
        tracer.write_all(&getpid().as_raw_nonzero().get().to_ne_bytes())?;
        tracer.read_exact(&mut [0])?;
        // From now on the end of the tracer ends it. The setting would last in the program.
        set_parent_process_death_signal(None)?;
        apply_filter(&filter).map_err(|_| io::ErrorKind::Unsupported.into())
    };
    // SAFETY: between fork and exec the function makes system calls on memory that exists, and
    // neither allocates nor locks: the filter was built before.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}
