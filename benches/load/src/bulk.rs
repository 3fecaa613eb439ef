//! Reads everything that a server sends, one connection after another.

use std::io;
use std::time::Instant;

use rustix::net::{RecvFlags, recv};

use crate::Options;
use crate::report::Report;
use crate::window::Window;

/// An operation is one megabyte (10^6 bytes), so the rate is in MB/s and the CPU time in
/// microseconds per MB.
pub(crate) fn run(options: &Options) -> io::Result<Report> {
    let mut buffer = vec![0; 1 << 20];
    // Data that the kernel discards (tcp(7), MSG_TRUNC) costs the client no copy.
    let drops = !options.copy && options.target.is_inet();
    let flags = if drops { RecvFlags::TRUNC } else { RecvFlags::empty() };
    let mut window = Window::new(options);
    window.begin_now();
    let mut rest = 0;
    for _ in 0..options.connections {
        let begin = Instant::now();
        let socket = options.target.open(0)?;
        let mut total = rest;
        loop {
            let (_, received) = recv(&socket, &mut buffer[..], flags)?;
            if received == 0 {
                break;
            }
            total += received;
        }
        rest = total % 1_000_000;
        window.note((total / 1_000_000) as u64, begin, Instant::now());
    }
    Ok(window.report())
}
