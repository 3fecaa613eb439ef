//! Measures one receive of data that has already arrived, with a plain recv(2) and with this
//! project's socket in its modes.
//!
//! `recv VARIANT` prints one line of JSON, with those fields of the load generator's report
//! that apply to a single call.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use rustix::net::{RecvFlags, SendFlags};
use sock::{Socket, socketpair};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Variant {
    /// recv(2) of a blocking socket
    Plain,
    /// recv(2) of a non-blocking socket, after poll(2), as in Python
    PollFirst,
    /// `Socket::recv_into` without a timeout
    Blocking,
    /// `Socket::recv_into` with a timeout
    Timed,
    /// `Socket::recv`, which allocates
    Allocating,
    /// `Read` of `Socket::makefile_rb`
    Makefile,
}

#[derive(Parser)]
struct Options {
    variant: Variant,
    #[arg(long)]
    cpu: Option<usize>,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// Number of messages that wait in the socket.
const WAITING: usize = 128;
const SIZE: usize = 64;

fn main() -> io::Result<()> {
    let options = Options::parse();
    if let Some(cpu) = options.cpu {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    let (ours, theirs) = socketpair()?;
    let mut buffer = [0; SIZE];
    let long = Duration::from_secs(60);
    match options.variant {
        Variant::Plain => {
            measure(&options, &theirs, || Ok(rustix::net::recv(&ours, &mut buffer, RecvFlags::empty())?.0))
        }
        Variant::PollFirst => {
            ours.settimeout(long)?;
            measure(&options, &theirs, || {
                let limit = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
                let mut set = [rustix::event::PollFd::new(&ours, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut set, Some(&limit))?;
                Ok(rustix::net::recv(&ours, &mut buffer, RecvFlags::empty())?.0)
            })
        }
        Variant::Blocking => measure(&options, &theirs, || ours.recv_into(&mut buffer)),
        Variant::Timed => {
            ours.settimeout(long)?;
            measure(&options, &theirs, || ours.recv_into(&mut buffer))
        }
        Variant::Allocating => measure(&options, &theirs, || ours.recv(SIZE).map(|data| data.len())),
        Variant::Makefile => {
            // Equal to the size of the buffer, so that nothing is read ahead.
            let mut file = sock::SocketReader::new(&ours, SIZE);
            measure(&options, &theirs, || io::Read::read(&mut file, &mut buffer))
        }
    }
}

fn measure(
    options: &Options,
    theirs: &Socket,
    mut receive: impl FnMut() -> io::Result<usize>,
) -> io::Result<()> {
    let message = [b'x'; SIZE];
    let begin = Instant::now();
    let (mut spent, mut calls) = (Duration::ZERO, 0_u64);
    while begin.elapsed().as_secs_f64() < options.seconds {
        for _ in 0..WAITING {
            rustix::net::send(theirs.as_fd(), &message, SendFlags::NOSIGNAL)?;
        }
        let start = cpu_time();
        for _ in 0..WAITING {
            let received = receive()?;
            if received != SIZE {
                return Err(io::Error::other(format!("received {received} bytes instead of {SIZE}")));
            }
        }
        spent += cpu_time() - start;
        calls += WAITING as u64;
    }
    let each = spent.as_secs_f64() / calls as f64;
    println!("{{\"operations\":{calls},\"rate\":{:.0},\"cpu\":{:.5}}}", 1.0 / each, each * 1e6);
    Ok(())
}

/// Returns the CPU time, which excludes other processes.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
