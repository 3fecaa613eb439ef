//! Rust peers: comparable servers written with `std` and tokio.
//!
//! Usage: `peers MODEL ADDRESS`, where ADDRESS is a port of 127.0.0.1 or the path of a Unix
//! socket. A message whose first byte is `Q` is echoed and the connection closed.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use socket2::{Domain, Socket, Type};

mod standard;
mod tokio_peers;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Model {
    /// std, a thread for each connection
    StdThread,
    /// std, a pool of 64 threads behind a channel
    StdPool,
    /// std, one connection after another
    StdSequential,
    /// std, recv_from and send_to
    StdUdp,
    /// std, sends the file with io::copy
    StdCopy,
    /// std, sends the file with read and write of 64 KiB
    StdReadWrite,
    /// std, sends the file with sendfile(2)
    StdSendfile,
    /// tokio, current-thread runtime
    TokioCurrent,
    /// tokio, multi-thread runtime with two workers
    TokioMulti,
    /// tokio, recv_from and send_to
    TokioUdp,
    /// tokio, sends the file with tokio::io::copy
    TokioCopy,
}

#[derive(Parser)]
#[command(about = "Echo servers based on std and tokio")]
struct Options {
    model: Model,
    /// Port of 127.0.0.1, or path of a Unix socket
    address: String,
    /// File to send
    #[arg(long)]
    file: Option<PathBuf>,
}

/// The listening address of a peer.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let file = options.file.clone().unwrap_or_default();
    let address = options.address.as_str();
    match options.model {
        Model::StdThread => standard::threads(listen(address)?),
        Model::StdPool => standard::pool(listen(address)?, 64),
        Model::StdSequential => standard::sequential(listen(address)?),
        Model::StdUdp => standard::udp(datagrams(address)?),
        Model::StdCopy => standard::files(listen(address)?, file, standard::copy),
        Model::StdReadWrite => standard::files(listen(address)?, file, standard::read_write),
        Model::StdSendfile => standard::files(listen(address)?, file, standard::send_file),
        Model::TokioCurrent => tokio_peers::echo(listen(address)?, None),
        Model::TokioMulti => tokio_peers::echo(listen(address)?, Some(2)),
        Model::TokioUdp => tokio_peers::udp(datagrams(address)?),
        Model::TokioCopy => tokio_peers::files(listen(address)?, file),
    }
}

fn listen(address: &str) -> io::Result<Listener> {
    if address.starts_with('/') {
        return Ok(Listener::Unix(UnixListener::bind(address)?));
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&local(address)?.into())?;
    socket.listen(4096)?;
    Ok(Listener::Tcp(socket.into()))
}

fn datagrams(address: &str) -> io::Result<UdpSocket> {
    UdpSocket::bind(local(address)?)
}

fn local(port: &str) -> io::Result<SocketAddr> {
    let port: u16 = port.parse().map_err(|_| io::Error::other(format!("invalid port {port}")))?;
    Ok((Ipv4Addr::LOCALHOST, port).into())
}
