//! The lines that the server prints for the tests, and its hooks.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use signal_hook::consts::{SIGUSR1, SIGUSR2};
use sock::{Address, Shutdown, Socket, StreamSocket};
use sockserver::kind::Kind;
use sockserver::{DrainReport, MixIn, Request, Server, ServerHandle, ServerHooks};

use crate::commands;
use crate::options::Options;

static HANDLE: OnceLock<ServerHandle> = OnceLock::new();
static STATS_REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Prints the server's addresses, and prepares to print its counters.
pub(crate) fn ready<K: Kind, M: MixIn>(server: &Server<K, M>, options: &Options) -> io::Result<()> {
    let _ = HANDLE.set(server.handle());
    // A handler that only interrupts system calls.
    signal_hook::flag::register(SIGUSR2, Arc::default())?;
    commands::lock_permanently();
    if server.mixin().forks() {
        let requested = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGUSR1, Arc::clone(&requested))?;
        let _ = STATS_REQUESTED.set(requested);
    } else {
        let handle = server.handle();
        thread::spawn(move || {
            for line in io::stdin().lock().lines() {
                if line.is_err() {
                    break;
                }
                stats(&handle);
            }
        });
    }
    if options.flag("thread") {
        thread::spawn(|| {
            loop {
                log::trace!("a thread that keeps taking the logger's lock");
            }
        });
    }
    let addresses = server.server_addresses().iter().map(|address| format!(" address={address}"));
    println!("ready pid={}{}", std::process::id(), addresses.collect::<String>());
    Ok(())
}

pub(crate) fn stats(handle: &ServerHandle) {
    let stats = handle.stats();
    let timed_out = stats.timed_out;
    println!(
        "stats accepted={} finished={} failed={} disconnected={} panicked={} rejected={} wrap={} first_byte={} idle={} \
         read={} write={} request={} aborted={} in_flight={} idle_now={} lost_before_accept={} \
         consistent={}",
        stats.accepted,
        stats.finished,
        stats.failed,
        stats.disconnected,
        stats.panicked,
        stats.rejected,
        timed_out.wrap,
        timed_out.first_byte,
        timed_out.idle,
        timed_out.read,
        timed_out.write,
        timed_out.request,
        stats.aborted,
        stats.in_flight,
        stats.idle,
        stats.lost_before_accept,
        u8::from(stats.is_consistent()),
    );
}

pub(crate) fn drained(report: &DrainReport) {
    let peers = report.aborted.iter().map(|request| format!(" peer={}", request.client_address));
    println!(
        "drained finished={} idle={} aborted={} still_running={} elapsed={}{}",
        report.finished,
        report.idle,
        report.aborted.len(),
        report.still_running,
        report.elapsed.as_millis(),
        peers.collect::<String>()
    );
}

/// The default hooks, except that refused clients get a message.
pub(crate) struct Plain;

impl ServerHooks for Plain {
    fn refuse_request(&self, request: &Request, _: &Address) {
        send_busy(request);
    }
}

/// Hooks whose workers can fail at their start.
pub(crate) struct FailingStart {
    /// `FAULT:FILE`. While the file exists, a worker that starts does `fail`, `panic`, `abort`, `exit`
    /// or `hang`.
    boot: Option<String>,
}

impl FailingStart {
    pub(crate) fn new(boot: Option<String>) -> FailingStart {
        FailingStart { boot }
    }
}

impl ServerHooks for FailingStart {
    fn refuse_request(&self, request: &Request, _: &Address) {
        send_busy(request);
    }

    fn start_worker(&self) -> io::Result<()> {
        let Some((what, file)) = self.boot.as_deref().and_then(|boot| boot.split_once(':')) else {
            return Ok(());
        };
        if !Path::new(file).exists() {
            return Ok(());
        }
        match what {
            "fail" => Err(io::Error::other("planned by the test")),
            "panic" => panic!("planned by the test"),
            "abort" => std::process::abort(),
            "exit" => std::process::exit(7),
            "hang" => loop {
                thread::park();
            },
            other => Err(io::Error::other(format!("no such fault: {other}"))),
        }
    }
}

/// A handshake that lasts until the client has sent a line.
pub(crate) fn handshake(mut request: Socket, _: &Address) -> io::Result<Greeted> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        request.read_exact(&mut byte)?;
        line.extend(byte);
    }
    Ok(Greeted { socket: request, line: Mutex::new(line) })
}

/// A connection after its handshake. The handshake's line is received first.
pub(crate) struct Greeted {
    socket: Socket,
    line: Mutex<Vec<u8>>,
}

impl StreamSocket for Greeted {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.is_empty() {
            drop(line);
            return self.socket.recv_into(buffer);
        }
        let count = line.len().min(buffer.len());
        buffer[..count].copy_from_slice(&line[..count]);
        line.drain(..count);
        Ok(count)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.socket.send(data)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }

    fn pending(&self) -> usize {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn socket(&self) -> &Socket {
        &self.socket
    }
}

fn send_busy(request: &Request) {
    if let Some(stream) = request.stream() {
        let _ = stream.socket().sendall(b"busy\n");
    }
}

pub(crate) fn print_stats_if_requested() {
    let requested = STATS_REQUESTED.get().is_some_and(|requested| requested.swap(false, Ordering::Relaxed));
    if let Some(handle) = HANDLE.get().filter(|_| requested) {
        stats(handle);
    }
}
