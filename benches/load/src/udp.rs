//! Datagrams: several sockets, each with several in flight.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use socket2::{Socket, Type};

use crate::Options;
use crate::net::failure;
use crate::report::Report;
use crate::window::{Phase, Window};

pub(crate) fn run(options: &Options) -> io::Result<Report> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let each = (options.window / options.connections.max(1)).clamp(1, 64);
    let mut batch = Batch::new(each, options.size);
    let mut sockets = Vec::new();
    for number in 0..options.connections {
        let socket = options.target.connect(Type::DGRAM, 0)?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(4 << 20)?;
        epoll::add(&epoll, &socket, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
        sockets.push(socket);
    }
    let mut window = Window::new(options);
    let mut since = vec![Instant::now(); sockets.len()];
    for socket in &sockets {
        batch.send(socket, each)?;
    }
    let mut events = Vec::with_capacity(64);
    let tick = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut silences = 0;
    while window.phase() != Phase::Over {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&tick))?;
        if events.is_empty() {
            // Datagrams may be lost, so all of them are sent again.
            silences += 1;
            if silences > 200 {
                return Err(failure("the server has stopped answering".into()));
            }
            for socket in &sockets {
                batch.send(socket, each)?;
            }
        }
        for event in &events {
            let number = event.data.u64() as usize;
            let received = batch.receive(&sockets[number])?;
            if received > 0 {
                let now = Instant::now();
                window.note(received as u64, since[number], now);
                since[number] = now;
                batch.send(&sockets[number], received.min(each))?;
            }
        }
    }
    Ok(window.report())
}

/// Buffers for many datagrams in one system call.
pub(crate) struct Batch {
    headers: MultiHeaders<SockaddrStorage>,
    buffers: Vec<Vec<u8>>,
    message: Vec<u8>,
}

impl Batch {
    pub(crate) fn new(most: usize, size: usize) -> Batch {
        Batch {
            headers: MultiHeaders::preallocate(most, None),
            buffers: vec![vec![0; size + 64]; most],
            message: vec![b'x'; size],
        }
    }

    pub(crate) fn send(&mut self, socket: &Socket, count: usize) -> io::Result<()> {
        let slices: Vec<_> = (0..count).map(|_| [IoSlice::new(&self.message)]).collect();
        let nowhere = vec![None; count];
        match sendmmsg(socket.as_raw_fd(), &mut self.headers, &slices, &nowhere, [], MsgFlags::empty()) {
            // A datagram that was refused is sent again later, like a lost one.
            Ok(_) | Err(nix::Error::EAGAIN | nix::Error::ECONNREFUSED | nix::Error::ENOBUFS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Receives the available datagrams and returns their number.
    pub(crate) fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        let mut slices: Vec<_> = self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        match recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), flags, None) {
            Ok(received) => Ok(received.count()),
            Err(nix::Error::EAGAIN | nix::Error::ECONNREFUSED) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}
