//! Connections that repeatedly send a message and wait for its echo, and idle connections
//! beside them.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::Socket;

use crate::Options;
use crate::net::{RESPONSE_TIMEOUT, failure, source};
use crate::report::{IdleReport, Report};
use crate::server::{Costs, Memory};
use crate::window::{Phase, Window};

struct Connection {
    socket: Socket,
    sent: usize,
    received: usize,
    since: Instant,
}

impl Connection {
    /// Sends as much of the message as fits.
    fn fire(&mut self, message: &[u8]) -> io::Result<()> {
        while self.sent < message.len() {
            match send(&self.socket, &message[self.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

pub(crate) fn run(options: &Options) -> io::Result<Report> {
    let message = vec![b'x'; options.size];
    let mut buffer = vec![0; 256 * 1024];
    let (_idle, idle_report) = idle(options)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections = Vec::new();
    // A message larger than the socket's buffer is sent in parts.
    let pieces = if options.size > 60_000 { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET | pieces;
    for number in 0..options.connections {
        let socket = options.target.open(0)?;
        socket.set_nonblocking(true)?;
        epoll::add(&epoll, &socket, epoll::EventData::new_u64(number as u64), flags)?;
        connections.push(Connection { socket, sent: 0, received: 0, since: Instant::now() });
    }
    let mut window = Window::new(options);
    for connection in &mut connections {
        connection.fire(&message)?;
    }
    let mut events = Vec::with_capacity(256);
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let mut last_receive = Instant::now();
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&tick))?;
        match window.phase() {
            Phase::Over => break,
            Phase::Begins => {
                connections.iter_mut().for_each(|connection| connection.since = Instant::now())
            }
            Phase::Running => {}
        }
        if events.is_empty() {
            if last_receive.elapsed() > RESPONSE_TIMEOUT {
                return Err(failure("the server has stopped answering".into()));
            }
            continue;
        }
        last_receive = Instant::now();
        for event in &events {
            let connection = &mut connections[event.data.u64() as usize];
            answer(connection, &message, &mut buffer, &mut window)?;
        }
    }
    let mut report = window.report();
    report.idle = idle_report;
    Ok(report)
}

/// Receives the available data, and sends the next message when the echo is complete.
fn answer(
    connection: &mut Connection,
    message: &[u8],
    buffer: &mut [u8],
    window: &mut Window,
) -> io::Result<()> {
    loop {
        match recv(&connection.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(failure("the server has closed a connection".into())),
            Ok((received, _)) => connection.received += received,
            Err(rustix::io::Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        }
        if connection.received > message.len() {
            return Err(failure("the echo is longer than the message".into()));
        }
        if connection.received == message.len() {
            let now = Instant::now();
            window.note(1, connection.since, now);
            (connection.sent, connection.received, connection.since) = (0, 0, now);
            return connection.fire(message);
        }
    }
    connection.fire(message)
}

/// Opens connections that echo once and then stay idle, and measures their memory.
fn idle(options: &Options) -> io::Result<(Vec<Socket>, Option<IdleReport>)> {
    if options.idle == 0 {
        return Ok((Vec::new(), None));
    }
    let before = Memory::of(options.server);
    let begin = Instant::now();
    let mut connections = Vec::with_capacity(options.idle);
    let mut answer = [0; 64];
    for number in 0..options.idle {
        let socket = options.target.open(source(number))?;
        send(&socket, &[b'x'; 64], SendFlags::NOSIGNAL)?;
        let (received, _) = recv(&socket, &mut answer, RecvFlags::WAITALL)?;
        if received != answer.len() {
            return Err(failure(format!("idle connection {number} got {received} bytes of 64")));
        }
        connections.push(socket);
        if begin.elapsed() > Duration::from_secs(60) {
            return Err(failure(format!("only {number} idle connections in a minute")));
        }
    }
    // Work that follows the last response does not belong to the idle connections.
    thread::sleep(Duration::from_millis(500));
    let after = Memory::of(options.server);
    let each = |before: u64, after: u64| (after as f64 - before as f64) / options.idle as f64;
    let report = IdleReport {
        connections: options.idle,
        user: each(before.user, after.user),
        page_tables: each(before.page_tables, after.page_tables),
        kernel_stacks: each(before.kernel_stacks, after.kernel_stacks),
        slab: each(before.slab, after.slab),
        threads: Costs::of(options.server).threads,
    };
    Ok((connections, Some(report)))
}
