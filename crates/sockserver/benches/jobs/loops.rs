//! Measures connections through the accept loop of each mixin, in a separate process.
//!
//! Client and server alternate, so the result is the latency of one connection on an idle server,
//! including the wake-up.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use criterion::Criterion;
use sockserver::kind::Family;
use sockserver::{
    MixIn, PreforkTCPServer, SelectorTCPServer, StreamServer, TCPServer, ThreadPoolTCPServer,
    ThreadingTCPServer,
};

use crate::requests::{Echo, begin, end};

/// The environment variable that selects the server of this process.
const MODEL: &str = "SOCKSERVER_BENCH_MODEL";

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

const MODELS: [&str; 6] =
    ["by hand", "Sequential", "ThreadingMixIn", "ThreadPoolMixIn", "PreforkMixIn", "SelectorMixIn"];

pub(crate) fn connections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a connection through a loop");
    for model in MODELS {
        let server = Server::start(model).expect("it starts");
        group.bench_function(model, |bencher| bencher.iter(|| end(begin(server.address))));
    }
    group.finish();
}

/// A server process, which is killed when this value is dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(model: &str) -> io::Result<Server> {
        let mut process = Command::new(env::current_exe()?)
            .env(MODEL, model)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut port = String::new();
        BufReader::new(process.stdout.take().expect("stdout is piped")).read_line(&mut port)?;
        let port = port.trim_end().parse().map_err(io::Error::other)?;
        Ok(Server { process, address: SocketAddr::from((ANY.0, port)) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves if the environment variable is set.
pub(crate) fn serve_if_requested() -> bool {
    let Ok(model) = env::var(MODEL) else { return false };
    let served = match model.as_str() {
        "by hand" => serve_by_hand(),
        "Sequential" => serve(TCPServer::new(ANY, || Echo)),
        "ThreadingMixIn" => serve(ThreadingTCPServer::new(ANY, || Echo)),
        "ThreadPoolMixIn" => serve(ThreadPoolTCPServer::new(ANY, || Echo)),
        "PreforkMixIn" => serve(PreforkTCPServer::new(ANY, || Echo)),
        "SelectorMixIn" => serve(SelectorTCPServer::new(ANY, || Echo)),
        other => panic!("no model {other}"),
    };
    served.expect("serves until it is killed");
    true
}

fn serve<F: Family, M: MixIn>(server: io::Result<StreamServer<F, M>>) -> io::Result<()> {
    let server = server?;
    println!("{}", server.server_address().port().expect("listens on an IP address"));
    server.serve_forever()
}

fn serve_by_hand() -> io::Result<()> {
    let listener = TcpListener::bind(ANY)?;
    println!("{}", listener.local_addr()?.port());
    let mut buffer = [0; 8192];
    loop {
        let (mut connection, _) = listener.accept()?;
        let received = connection.read(&mut buffer)?;
        connection.write_all(&buffer[..received])?;
    }
}
