//! Makes a given number of requests in lockstep, so that their costs can be counted
//! reproducibly.
//!
//! The load generator sends all requests of a round before it waits for the responses. On
//! one CPU, with a server that never preempts it, the server always finds the whole round
//! waiting, regardless of the load of the machine.

use std::io;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::Type;

use crate::net::{RESPONSE_TIMEOUT, failure};
use crate::report::Report;
use crate::udp::Batch;
use crate::window::Window;
use crate::{Kind, Options, short};

pub(crate) fn run(options: &Options) -> io::Result<Report> {
    let mut window = Window::new(options);
    window.begin_now();
    let rounds = options.requests / options.connections.max(1);
    match options.kind {
        Kind::Echo => echo(options, rounds)?,
        Kind::Short => short(options, rounds)?,
        Kind::Udp => udp(options, rounds)?,
    }
    let now = std::time::Instant::now();
    window.note((rounds * options.connections) as u64, now, now);
    Ok(window.report())
}

fn echo(options: &Options, rounds: usize) -> io::Result<()> {
    let message = vec![b'x'; options.size];
    let mut buffer = vec![0; options.size];
    let connections: Vec<_> =
        (0..options.connections).map(|_| options.target.open(0)).collect::<Result<_, _>>()?;
    for _ in 0..rounds {
        for connection in &connections {
            send(connection, &message, SendFlags::NOSIGNAL)?;
        }
        // The last request is answered last, so one wait covers the whole round.
        for connection in connections.iter().rev() {
            let (received, _) = recv(connection, &mut buffer[..], RecvFlags::WAITALL)?;
            if received != message.len() {
                return Err(failure(format!("received {received} bytes of {}", message.len())));
            }
        }
    }
    Ok(())
}

fn short(options: &Options, rounds: usize) -> io::Result<()> {
    let message = short::message(options);
    let mut buffer = vec![0; options.size + 64];
    for round in 0..rounds {
        let sockets: Vec<_> = (0..options.connections)
            .map(|number| short::begin_one(options, &message, round * options.connections + number))
            .collect::<Result<_, _>>()?;
        for socket in sockets.into_iter().rev() {
            short::end_one(options, socket, &mut buffer)?;
        }
    }
    Ok(())
}

fn udp(options: &Options, rounds: usize) -> io::Result<()> {
    let mut batch = Batch::new(options.connections, options.size);
    let socket = options.target.connect(Type::DGRAM, 0)?;
    socket.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    let mut buffer = vec![0; options.size + 64];
    for _ in 0..rounds {
        batch.send(&socket, options.connections)?;
        for _ in 0..options.connections {
            recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        }
    }
    Ok(())
}
