//! Interrupts a system call of another thread, by pthread_kill(3) with a signal whose handler does
//! nothing.

use std::io;
use std::mem;
use std::ptr;

/// The default action of `SIGURG` is to ignore it, and debuggers pass it through. Go's runtime uses
/// it to preempt threads for the same reasons.
const SIGNAL: libc::c_int = libc::SIGURG;

/// A thread whose system calls can be interrupted.
#[derive(Clone, Copy)]
pub(crate) struct Interruptible(libc::pthread_t);

extern "C" fn do_nothing(_: libc::c_int) {}

impl Interruptible {
    /// Returns the calling thread, which must be the main thread of the process, and installs the
    /// signal handler for the process.
    pub(crate) fn main_thread() -> io::Result<Interruptible> {
        let handler: extern "C" fn(libc::c_int) = do_nothing;
        // SAFETY: the structures are plain data, for which zeros are valid, and are read during
        // the calls. The handler accesses nothing. Without SA_RESTART an interrupted call fails
        // with EINTR.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = handler as usize;
            if libc::sigaction(SIGNAL, &action, ptr::null_mut()) < 0 {
                return Err(io::Error::last_os_error());
            }
            // A program that receives its signals in one thread blocks them in all others.
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, SIGNAL);
            match libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut()) {
                0 => Ok(Interruptible(libc::pthread_self())),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }

    /// Interrupts the system call that the thread is in, if any.
    pub(crate) fn interrupt(self) {
        // SAFETY: the main thread exists as long as the process.
        unsafe { libc::pthread_kill(self.0, SIGNAL) };
    }
}

// pthread_t is a pointer on some systems, but only identifies the thread.
// SAFETY: pthread_kill may be called from any thread.
unsafe impl Send for Interruptible {}

/// Receives, also if the program's interrupt hook ends calls. The hook is for calls of the program:
/// a thread of the server that stops here would no longer hear signals, or heartbeats would end.
pub(crate) fn recv_uninterrupted(socket: &sock::Socket, size: usize) -> io::Result<Vec<u8>> {
    loop {
        match socket.recv(size) {
            Err(error) if sock::was_interrupted(&error) => {}
            received => return received,
        }
    }
}
