//! The system calls of a watched program at which the kernel stops it.

use seccompiler::{BpfProgram, sock_filter};

use crate::sys::trace::{self, Register};

macro_rules! calls {
    ($($(#[$condition:meta])* $name:ident = $number:ident, $word:literal;)*) => {
        /// A system call that is watched.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Call { $($(#[$condition])* $name,)* }

        /// The calls with their numbers and names.
        pub(crate) const CALLS: &[(Call, u64, &str)] =
            &[$($(#[$condition])* (Call::$name, libc::$number as u64, $word),)*];
    };
}

calls! {
    Socket = SYS_socket, "socket";
    Socketpair = SYS_socketpair, "socketpair";
    Bind = SYS_bind, "bind";
    Listen = SYS_listen, "listen";
    Accept = SYS_accept, "accept";
    Accept4 = SYS_accept4, "accept4";
    Connect = SYS_connect, "connect";
    Shutdown = SYS_shutdown, "shutdown";
    Getsockname = SYS_getsockname, "getsockname";
    Getpeername = SYS_getpeername, "getpeername";
    Setsockopt = SYS_setsockopt, "setsockopt";
    Getsockopt = SYS_getsockopt, "getsockopt";
    Sendto = SYS_sendto, "sendto";
    Recvfrom = SYS_recvfrom, "recvfrom";
    Sendmsg = SYS_sendmsg, "sendmsg";
    Recvmsg = SYS_recvmsg, "recvmsg";
    Sendmmsg = SYS_sendmmsg, "sendmmsg";
    Recvmmsg = SYS_recvmmsg, "recvmmsg";
    Read = SYS_read, "read";
    Write = SYS_write, "write";
    Readv = SYS_readv, "readv";
    Writev = SYS_writev, "writev";
    Sendfile = SYS_sendfile, "sendfile";
    Splice = SYS_splice, "splice";
    Close = SYS_close, "close";
    Dup = SYS_dup, "dup";
    #[cfg(target_arch = "x86_64")]
    Dup2 = SYS_dup2, "dup2";
    Dup3 = SYS_dup3, "dup3";
    Fcntl = SYS_fcntl, "fcntl";
    Ioctl = SYS_ioctl, "ioctl";
    #[cfg(target_arch = "x86_64")]
    Poll = SYS_poll, "poll";
    Ppoll = SYS_ppoll, "ppoll";
    #[cfg(target_arch = "x86_64")]
    Select = SYS_select, "select";
    Pselect6 = SYS_pselect6, "pselect6";
    EpollCtl = SYS_epoll_ctl, "epoll_ctl";
    #[cfg(target_arch = "x86_64")]
    EpollWait = SYS_epoll_wait, "epoll_wait";
    EpollPwait = SYS_epoll_pwait, "epoll_pwait";
    EpollPwait2 = SYS_epoll_pwait2, "epoll_pwait2";
    Restart = SYS_restart_syscall, "restart_syscall";
    IoUring = SYS_io_uring_setup, "io_uring_setup";
}

impl Call {
    pub(crate) fn of_number(number: u64) -> Option<Call> {
        CALLS.iter().find(|(_, known, _)| *known == number).map(|(call, _, _)| *call)
    }

    /// Whether it cannot change what the kernel shows of a socket, apart from its timers.
    pub(crate) fn only_asks(self) -> bool {
        let name = self.name();
        let asks = ["getsockname", "getpeername", "setsockopt", "getsockopt", "fcntl", "ioctl", "socket"];
        asks.contains(&name)
            || ["poll", "ppoll", "select", "pselect", "epoll"].iter().any(|wait| name.starts_with(wait))
    }

    /// Whether it waits for an epoll descriptor, with a timeout in milliseconds as its fourth argument
    /// unless it is epoll_pwait2(2).
    pub(crate) fn is_epoll_wait(self) -> bool {
        self.name().starts_with("epoll_") && self != Call::EpollCtl
    }

    pub(crate) fn name(self) -> &'static str {
        CALLS.iter().find(|(known, _, _)| *known == self).map_or("?", |(_, _, name)| name)
    }
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
/// Programs of another architecture are not watched.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: u32 = 0;

/// Whether programs can be watched on this architecture.
pub(crate) const IS_SUPPORTED: bool = ARCHITECTURE != 0;

/// A child that is created with this flag has no tracer.
const CLONE_UNTRACED: u64 = 0x0080_0000;

/// Lets a new thread or process be traced although its creator wants that it is not: without a
/// tracer its calls would fail with ENOSYS.
pub(crate) fn keep_traced(thread: i32, number: u64, args: &[u64; 6]) {
    let flags = args[0];
    if number == libc::SYS_clone as u64 && flags & CLONE_UNTRACED != 0 {
        // If it fails, the thread was killed.
        let _ = trace::set_register(thread, Register::FirstArgument, flags & !CLONE_UNTRACED);
    }
    if number == libc::SYS_clone3 as u64 {
        // The argument is the address of struct clone_args, which begins with the flags.
        let data = trace::read_memory(thread, args[0], 8);
        let flags = data.first_chunk().map_or(0, |data| u64::from_ne_bytes(*data));
        if flags & CLONE_UNTRACED != 0 {
            trace::write_memory(thread, args[0], &(flags & !CLONE_UNTRACED).to_ne_bytes());
        }
    }
}

/// Returns the seccomp filter: [`CALLS`] stop the program for its tracer, and every other call runs
/// at native speed. The filter compares numbers only and refuses nothing. Calls of another
/// architecture, such as those of 32-bit programs, have other numbers and pass.
pub(crate) fn filter() -> BpfProgram {
    // Offsets in struct seccomp_data.
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };
    let instruction = |code: u32, k| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    // The instruction after it runs if the test succeeds.
    let jump =
        |test, value| sock_filter { jf: 1, ..instruction(libc::BPF_JMP | test | libc::BPF_K, value) };
    let if_equal = |value| jump(libc::BPF_JEQ, value);
    let end = |action| instruction(libc::BPF_RET | libc::BPF_K, action);
    let (allow, trace) = (end(libc::SECCOMP_RET_ALLOW), end(libc::SECCOMP_RET_TRACE));
    let skip = sock_filter { jt: 1, jf: 0, ..if_equal(ARCHITECTURE) };
    let mut program = vec![load(ARCH), skip, allow.clone(), load(NUMBER)];
    for (_, number, _) in CALLS {
        program.extend([if_equal(*number as u32), trace.clone()]);
    }
    program.extend([if_equal(libc::SYS_clone3 as u32), trace.clone()]);
    let if_clone = sock_filter { jf: 3, ..if_equal(libc::SYS_clone as u32) };
    let if_untraced = jump(libc::BPF_JSET, CLONE_UNTRACED as u32);
    program.extend([if_clone, load(FIRST_ARGUMENT), if_untraced, trace, allow]);
    program
}
