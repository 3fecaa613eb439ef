//! What the server tells whoever judges it, and its hooks.

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
static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Tells where the server is, and gets ready to tell its counters.
pub(crate) fn ready<K: Kind, M: MixIn>(server: &Server<K, M>, options: &Options) -> io::Result<()> {
    let _ = HANDLE.set(server.handle());
    // For storms: it does nothing but interrupt.
    signal_hook::flag::register(SIGUSR2, Arc::default())?;
    commands::lock_for_ever();
    if server.mixin().forks() {
        let asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGUSR1, Arc::clone(&asked))?;
        let _ = ASKED.set(asked);
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
    let late = stats.timed_out;
    println!(
        "stats accepted={} finished={} failed={} panicked={} rejected={} wrap={} first_byte={} idle={} \
         read={} write={} request={} cut={} in_flight={} between={} lost={} adds_up={}",
        stats.accepted,
        stats.finished,
        stats.failed,
        stats.panicked,
        stats.rejected,
        late.wrap,
        late.first_byte,
        late.idle,
        late.read,
        late.write,
        late.request,
        stats.aborted,
        stats.in_flight,
        stats.idle,
        stats.lost_before_accept,
        u8::from(stats.is_consistent()),
    );
}

pub(crate) fn drained(report: &DrainReport) {
    let peers = report.aborted.iter().map(|cut| format!(" peer={}", cut.client_address));
    println!(
        "drained finished={} idle={} cut={} left={} took={}{}",
        report.finished,
        report.idle,
        report.aborted.len(),
        report.still_running,
        report.elapsed.as_millis(),
        peers.collect::<String>()
    );
}

/// Python's defaults, but for a word to those who are one too many.
pub(crate) struct Plain;

impl ServerHooks for Plain {
    fn refuse_request(&self, request: &Request, _: &Address) {
        say_busy(request);
    }
}

/// Hooks whose workers can fail at their start.
pub(crate) struct Acting {
    /// What becomes of a worker before it serves anybody: `fail`, `panic`, `abort`,
    /// `exit` or `hang`, while the file of this name is there: `WHAT:FILE`.
    boot: Option<String>,
}

impl Acting {
    pub(crate) fn new(boot: Option<String>) -> Acting {
        Acting { boot }
    }
}

impl ServerHooks for Acting {
    fn refuse_request(&self, request: &Request, _: &Address) {
        say_busy(request);
    }

    fn start_worker(&self) -> io::Result<()> {
        let Some((what, file)) = self.boot.as_deref().and_then(|boot| boot.split_once(':')) else {
            return Ok(());
        };
        if !Path::new(file).exists() {
            return Ok(());
        }
        match what {
            "fail" => Err(io::Error::other("as the test wished")),
            "panic" => panic!("as the test wished"),
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

/// A connection after its handshake: the line of it is the first to be received.
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

fn say_busy(request: &Request) {
    if let Some(stream) = request.stream() {
        let _ = stream.socket().sendall(b"busy\n");
    }
}

pub(crate) fn print_stats_if_asked() {
    let asked = ASKED.get().is_some_and(|asked| asked.swap(false, Ordering::Relaxed));
    if let Some(handle) = HANDLE.get().filter(|_| asked) {
        stats(handle);
    }
}
