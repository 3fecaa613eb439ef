//! This project's servers, with ordinary handlers. An argument selects the model.
//!
//! Usage: `ours MODEL ADDRESS`, where ADDRESS is a port of 127.0.0.1 or the path of a Unix
//! socket.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use sockserver::kind::Inet;
use sockserver::{Builder, DatagramContext, DatagramRequestHandler, DatagramServer, ForkingTCPServer, ForkingUnixStreamServer, MixIn, PreforkTCPServer, SelectorTCPServer, SelectorUnixStreamServer, Sequential, StreamContext, StreamRequestHandler, StreamServer, TCPServer, ThreadPoolTCPServer, ThreadingTCPServer, ThreadingUnixStreamServer, UDPServer, UnixStreamServer};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Model {
    Tcp,
    Threading,
    Forking,
    Pool,
    Prefork,
    Selector,
    SelectorUnix,
    Unix,
    ThreadingUnix,
    ForkingUnix,
    Udp,
    UdpBatch,
    /// A thread for each connection; the handler copies until end of file
    Copy,
    /// A thread for each connection, which sends the file with io::copy
    File,
    /// A thread for each connection, which sends the file with sendfile(2)
    Sendfile,
}

#[derive(Parser)]
#[command(about = "This project's servers")]
struct Options {
    #[arg(required_unless_present = "models")]
    model: Option<Model>,
    /// Port of 127.0.0.1, or path of a Unix socket
    #[arg(required_unless_present = "models")]
    address: Option<String>,
    /// List the models
    #[arg(long)]
    models: bool,
    /// File that the models `file` and `sendfile` send
    #[arg(long)]
    file: Option<PathBuf>,
    /// Number of threads or processes
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

impl Options {
    fn file(&self) -> io::Result<PathBuf> {
        self.file.clone().ok_or_else(|| io::Error::other("which --file?"))
    }
}

/// Echoes one message. A message that starts with `Q` is the last one.
struct Echo;

impl StreamRequestHandler for Echo {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let message = cx.rfile.fill_buf()?;
        cx.wfile.write_all(message)?;
        let length = message.len();
        cx.close_connection = message.is_empty() || message[0] == b'Q';
        cx.rfile.consume(length);
        Ok(())
    }
}

/// Echoes until end of file, like the handler of `examples/echo_threading.rs`.
struct Copy;

impl StreamRequestHandler for Copy {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        io::copy(&mut cx.rfile, &mut cx.wfile)?;
        Ok(())
    }
}

/// Echoes a datagram.
struct EchoDatagram;

impl DatagramRequestHandler for EchoDatagram {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        cx.wfile.write_all(cx.packet)
    }
}

/// Sends a whole file through `cx.wfile`.
struct Send(PathBuf);

impl StreamRequestHandler for Send {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut file = File::open(&self.0)?;
        io::copy(&mut file, &mut cx.wfile)?;
        Ok(())
    }
}

/// Sends a whole file with sendfile(2).
struct Sendfile(PathBuf);

impl StreamRequestHandler for Sendfile {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.request.socket().sendfile(&File::open(&self.0)?, 0, None)?;
        Ok(())
    }
}

fn main() -> io::Result<()> {
    env_logger::init();
    let options = Options::parse();
    let (Some(model), Some(address)) = (options.model, options.address.as_deref()) else {
        for model in Model::value_variants() {
            println!("{}", model.to_possible_value().expect("no variant is skipped").get_name());
        }
        return Ok(());
    };
    match model {
        Model::Tcp => tcp(TCPServer::builder(|| Echo), address),
        Model::Threading => tcp(ThreadingTCPServer::builder(|| Echo), address),
        Model::Forking => tcp(ForkingTCPServer::builder(|| Echo), address),
        Model::Pool => tcp(ThreadPoolTCPServer::builder(|| Echo).workers(options.workers), address),
        Model::Prefork => tcp(PreforkTCPServer::builder(|| Echo).workers(options.workers), address),
        Model::Selector => tcp(SelectorTCPServer::builder(|| Echo).workers(options.workers), address),
        Model::SelectorUnix => {
            unix(SelectorUnixStreamServer::builder(|| Echo).workers(options.workers), address)
        }
        Model::Unix => unix(UnixStreamServer::builder(|| Echo), address),
        Model::ThreadingUnix => unix(ThreadingUnixStreamServer::builder(|| Echo), address),
        Model::ForkingUnix => unix(ForkingUnixStreamServer::builder(|| Echo), address),
        Model::Udp => udp(UDPServer::builder(|| EchoDatagram), address),
        Model::UdpBatch => udp(UDPServer::builder(|| EchoDatagram).max_batch(64), address),
        Model::Copy => tcp(ThreadingTCPServer::builder(|| Copy), address),
        Model::File => {
            let file = options.file()?;
            tcp(ThreadingTCPServer::builder(move || Send(file.clone())), address)
        }
        Model::Sendfile => {
            let file = options.file()?;
            tcp(ThreadingTCPServer::builder(move || Sendfile(file.clone())), address)
        }
    }
}

/// Connections that arrive faster than they are served wait in the listen queue, as with the
/// peers.
const QUEUE: i32 = 4096;

fn tcp<M: MixIn>(builder: Builder<sockserver::kind::Stream<Inet>, M>, port: &str) -> io::Result<()> {
    let server: StreamServer<Inet, M> =
        builder.allow_reuse_address(true).request_queue_size(QUEUE).bind(("127.0.0.1", number(port)?))?;
    server.serve_forever()
}

fn unix<M: MixIn>(builder: Builder<sockserver::kind::Stream<sockserver::kind::Unix>, M>, path: &str) -> io::Result<()> {
    builder.request_queue_size(QUEUE).bind(Path::new(path))?.serve_forever()
}

fn udp(builder: Builder<sockserver::kind::Datagram<Inet>, Sequential>, port: &str) -> io::Result<()> {
    let server: DatagramServer<Inet, Sequential> = builder.bind(("127.0.0.1", number(port)?))?;
    server.serve_forever()
}

fn number(port: &str) -> io::Result<u16> {
    port.parse().map_err(|_| io::Error::other(format!("invalid port {port}")))
}
