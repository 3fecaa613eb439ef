//! Reads all that a server sends, one connection after the other.

use std::io;
use std::time::Instant;

use rustix::net::{RecvFlags, recv};

use crate::Options;
use crate::report::Report;
use crate::window::Window;

/// The operation is a megabyte (10^6 bytes): the rate is in MB/s, the CPU in
/// microseconds for each MB, which is milliseconds for each GB.
pub(crate) fn run(options: &Options) -> io::Result<Report> {
    let mut buffer = vec![0; 1 << 20];
    // Dropped in the kernel (tcp(7), MSG_TRUNC), the bytes cost the client nothing.
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
