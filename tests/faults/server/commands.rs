//! Handlers that execute the commands of their client.

use std::hint::black_box;
use std::io::{self, BufRead, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sockserver::{DatagramContext, DatagramRequestHandler, StreamContext, StreamRequestHandler};

/// The longest line that a client may send.
const LONGEST: u64 = 64 << 10;

static HELD: Mutex<()> = Mutex::new(());
static POISONED: Mutex<u32> = Mutex::new(0);

/// Locks the mutex that `block` waits for.
pub(crate) fn lock_permanently() {
    let held: MutexGuard<'static, ()> = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::forget(held);
}

/// Executes each line as a command, and echoes lines that are not commands. See [`Lines::execute`].
#[derive(Default)]
pub(crate) struct Lines {
    panics_in_drop: bool,
}

impl StreamRequestHandler for Lines {
    // Buffered, so that a line is sent as one segment.
    const WBUFSIZE: usize = 8192;

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = Vec::new();
        let read = (&mut cx.rfile).take(LONGEST).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if read as u64 == LONGEST && !line.ends_with(b"\n") {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is not text"));
        };
        cx.close_connection = self.execute(text.trim_end(), cx)?;
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        assert!(!self.panics_in_drop, "a panic in Drop");
    }
}

impl Lines {
    /// Executes a command. Returns whether the connection has to be closed.
    fn execute(&mut self, line: &str, cx: &mut StreamContext<'_>) -> io::Result<bool> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = rest.parse::<u64>().unwrap_or(0);
        match command {
            "big" => send(cx, number)?,
            // Answers and closes, even if the client is still sending.
            "ignore" => {
                send(cx, number)?;
                return Ok(true);
            }
            "bye" => return Ok(true),
            "sleep" => {
                thread::sleep(Duration::from_millis(number));
                writeln!(cx.wfile, "slept")?;
            }
            "all" => {
                let read = io::copy(&mut cx.rfile, &mut io::sink())?;
                writeln!(cx.wfile, "read {read}")?;
                send(cx, number)?;
            }
            "peer" => match cx.request.socket().getpeername() {
                Ok(peer) => writeln!(cx.wfile, "{} {peer}", cx.client_address)?,
                Err(error) => writeln!(cx.wfile, "{} unknown: {error}", cx.client_address)?,
            },
            "pid" => writeln!(cx.wfile, "{}", std::process::id())?,
            "fail" => return Err(io::Error::other("requested by the client")),
            "panic" => panic!("requested by the client"),
            "panic-lock" => {
                let _held = POISONED.lock();
                panic!("while a lock is held");
            }
            "use-lock" => {
                let poisoned = POISONED.lock().is_err();
                writeln!(cx.wfile, "poisoned {poisoned}")?;
            }
            "panic-drop" => self.panics_in_drop = true,
            "overflow" => writeln!(cx.wfile, "{}", overflow(number))?,
            "block" => drop(HELD.lock()),
            "spin" => loop {
                std::hint::spin_loop();
            },
            "memory" => {
                let mut much = vec![1_u8; number as usize];
                black_box(&mut much);
                writeln!(cx.wfile, "allocated")?;
            }
            "shutdown" => answer(cx, cx.server.shutdown())?,
            "drain" => answer(cx, cx.server.drain(Duration::from_millis(number)))?,
            _ => writeln!(cx.wfile, "{line}")?,
        }
        Ok(false)
    }
}

fn answer<T>(cx: &mut StreamContext<'_>, result: io::Result<T>) -> io::Result<()> {
    match result {
        Ok(_) => writeln!(cx.wfile, "ok"),
        Err(error) => writeln!(cx.wfile, "{:?}", error.kind()),
    }
}

fn send(cx: &mut StreamContext<'_>, mut bytes: u64) -> io::Result<()> {
    let block = [b'x'; 1 << 16];
    while bytes > 0 {
        let now = bytes.min(block.len() as u64);
        cx.wfile.write_all(&block[..now as usize])?;
        bytes -= now;
    }
    Ok(())
}

#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 512]);
    overflow(depth + 1) + frame[(depth % 512) as usize]
}

/// Echoes datagrams that are not commands.
pub(crate) struct Packets;

impl DatagramRequestHandler for Packets {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        match cx.packet {
            packet if cx.is_truncated => {
                cx.wfile.write_all(b"cut ")?;
                cx.wfile.write_all(&packet[4..])
            }
            b"" => cx.wfile.write_all(b"empty"),
            b"panic" => panic!("requested by the client"),
            b"fail" => Err(io::Error::other("requested by the client")),
            // More than a datagram can hold.
            b"big" => cx.wfile.write_all(&[b'x'; 70_000]),
            b"sleep" => {
                thread::sleep(Duration::from_millis(500));
                cx.wfile.write_all(b"slept")
            }
            b"block" => {
                drop(HELD.lock());
                Ok(())
            }
            packet => cx.wfile.write_all(packet),
        }
    }
}
