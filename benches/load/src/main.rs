//! Load generator for echo servers on this machine, with one thread and epoll.
//!
//! It prints one line of JSON. The modes are:
//!
//! - `echo`: connections that repeatedly send a message and wait for its echo
//! - `short`: connect, send, half-close, read to the end, close; many at a time
//! - `udp`: many datagrams in flight
//! - `bulk`: reads everything a server sends, one connection after another
//! - `rounds`: a given number of requests in lockstep, for counting their costs
//!
//! Every run is bounded in time, and only loopback addresses are accepted.

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

/// The kind of a request of `rounds`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Echo,
    Short,
    Udp,
}

#[derive(Parser)]
#[command(about = "Generates load for echo servers on this machine, and prints one line of JSON")]
struct Options {
    mode: Mode,
    /// 127.0.0.1:PORT, or the path of a Unix socket
    target: Target,
    /// Server process, whose CPU time is measured together with that of its descendants
    #[arg(long)]
    server: Option<i32>,
    /// Number of connections, or of sockets for udp
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Size of a message in bytes
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Duration of the measurement in seconds
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Duration of the warm-up in seconds
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
    /// Number of idle connections, which are used once before (echo)
    #[arg(long, default_value_t = 0)]
    idle: usize,
    /// Number of datagrams in flight (udp)
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Request a close by the server with each message, which starts with `Q` (short)
    #[arg(long)]
    server_closes: bool,
    /// Copy the received data instead of discarding it in the kernel (bulk over TCP)
    #[arg(long)]
    copy: bool,
    /// Number of requests, a multiple of the number of connections (rounds)
    #[arg(long, default_value_t = 640)]
    requests: usize,
    /// Kind of a request (rounds)
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
    // The default action of SIGALRM ends a run that exceeds its time.
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
