//! Load generator for echo servers: one thread, epoll, this machine only.
//!
//! It prints one line of JSON. Its modes:
//!
//! - `echo`: connections that send a message and wait for its echo, over and over
//! - `short`: connect, send, half-close, read to the end, close; many at a time
//! - `udp`: datagrams, many under way
//! - `bulk`: reads all a server sends, one connection after the other
//! - `rounds`: a given number of requests in lockstep, to count what they cost
//!
//! Every run is bounded in time, and only loopback addresses are taken.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

mod bulk;
mod echo;
mod net;
mod report;
mod rounds;
mod server;
mod short;
mod udp;
mod window;

use net::Target;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Echo,
    Short,
    Udp,
    Bulk,
    Rounds,
}

/// What is rounds' request?
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Echo,
    Short,
    Udp,
}

#[derive(Parser)]
#[command(about = "Load for echo servers on this machine; prints one line of JSON")]
struct Options {
    mode: Mode,
    /// 127.0.0.1:PORT, or the path of a Unix socket
    target: Target,
    /// Process whose CPU time, and that of its descendants, is the server's
    #[arg(long)]
    server: Option<i32>,
    /// Connections, or for udp sockets
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Seconds that are measured
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Seconds before that
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
    /// Connections that were used once and then say nothing (echo)
    #[arg(long, default_value_t = 0)]
    idle: usize,
    /// Datagrams under way (udp)
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Each message asks the server to close (short); see the servers' `Q`
    #[arg(long)]
    server_closes: bool,
    /// Copies what it reads; without this the kernel drops it (bulk over TCP)
    #[arg(long)]
    copy: bool,
    /// Requests that are made (rounds): a multiple of the connections
    #[arg(long, default_value_t = 640)]
    requests: usize,
    /// What a request is (rounds)
    #[arg(long, value_enum, default_value_t = Kind::Echo)]
    kind: Kind,
    /// CPU to run on
    #[arg(long)]
    cpu: Option<usize>,
}

impl Options {
    fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up.clamp(0.0, 60.0))
    }

    fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.clamp(0.0, 60.0))
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> std::io::Result<String> {
    if let Some(cpu) = options.cpu {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    net::allow_many_descriptors();
    // Whatever goes wrong, no run outlives its time: the default of SIGALRM ends it.
    nix::unistd::alarm::set((options.seconds() + options.warm_up()).as_secs() as u32 + 120);
    let report = match options.mode {
        Mode::Echo => echo::run(options),
        Mode::Short => short::run(options),
        Mode::Udp => udp::run(options),
        Mode::Bulk => bulk::run(options),
        Mode::Rounds => rounds::run(options),
    }?;
    Ok(serde_json::to_string(&report)?)
}
