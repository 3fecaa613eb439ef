//! Short connections: connect, send, half-close, read to the end, close.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use socket2::{Socket, Type};

use crate::Options;
use crate::net::{RESPONSE_TIMEOUT, failure, source};
use crate::report::Report;
use crate::window::{Phase, Window};

pub(crate) fn run(options: &Options) -> io::Result<Report> {
    let message = message(options);
    let mut buffer = vec![0; options.size + 64];
    let mut window = Window::new(options);
    // The oldest connection is handled first.
    let mut waiting = VecDeque::new();
    let mut number = 0;
    while window.phase() != Phase::Over {
        while waiting.len() < options.connections {
            number += 1;
            let begin = Instant::now();
            waiting.push_back((begin_one(options, &message, number)?, begin));
        }
        if let Some((socket, begin)) = waiting.pop_front() {
            end_one(options, socket, &mut buffer)?;
            window.note(1, begin, Instant::now());
        }
    }
    Ok(window.report())
}

/// Returns the message, whose first byte may request a close by the server.
pub(crate) fn message(options: &Options) -> Vec<u8> {
    let mut message = vec![b'x'; options.size];
    if options.server_closes {
        message[0] = b'Q';
    }
    message
}

pub(crate) fn begin_one(options: &Options, message: &[u8], number: usize) -> io::Result<Socket> {
    let socket = options.target.connect(Type::STREAM, source(number))?;
    if send(&socket, message, SendFlags::NOSIGNAL)? != message.len() {
        return Err(failure("the message did not fit".into()));
    }
    if !options.server_closes {
        shutdown(&socket, Shutdown::Write)?;
    }
    Ok(socket)
}

/// Reads the echo and the end of file that follows it.
pub(crate) fn end_one(options: &Options, socket: Socket, buffer: &mut [u8]) -> io::Result<()> {
    let mut got = match recv(&socket, &mut *buffer, RecvFlags::WAITALL | RecvFlags::DONTWAIT) {
        Ok((received, _)) => received,
        Err(rustix::io::Errno::AGAIN) => 0,
        Err(error) => return Err(error.into()),
    };
    // The echo is incomplete, or its end has not arrived.
    if got < options.size {
        socket.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    }
    loop {
        let (received, _) = recv(&socket, &mut buffer[got..], RecvFlags::WAITALL)?;
        got += received;
        if received == 0 || got == buffer.len() {
            break;
        }
    }
    if got != options.size {
        return Err(failure(format!("received {got} bytes of {}", options.size)));
    }
    if options.server_closes {
        // Each closed connection would stay in TIME_WAIT for a minute, so it is reset instead.
        socket.set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}
