//! Servers based on tokio.

use std::io;
use std::net;
use std::path::PathBuf;

use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio::runtime::Builder;

use crate::Listener;

/// A task for each connection. Without `workers` all tasks run in this thread.
pub(crate) fn echo(listener: Listener, workers: Option<usize>) -> io::Result<()> {
    let runtime = match workers {
        None => Builder::new_current_thread().enable_io().build()?,
        Some(workers) => Builder::new_multi_thread().worker_threads(workers).enable_io().build()?,
    };
    // A separate task makes accepting run on a worker too.
    let accept = async move {
        match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    tokio::spawn(serve(stream));
                }
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    tokio::spawn(serve(stream));
                }
            }
        }
    };
    match workers {
        None => runtime.block_on(accept),
        Some(_) => runtime.block_on(async { tokio::spawn(accept).await.map_err(io::Error::other)? }),
    }
}

pub(crate) fn udp(socket: net::UdpSocket) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    socket.set_nonblocking(true)?;
    runtime.block_on(async {
        let socket = UdpSocket::from_std(socket)?;
        let mut buffer = [0; 8192];
        loop {
            let (received, from) = socket.recv_from(&mut buffer).await?;
            socket.send_to(&buffer[..received], from).await?;
        }
    })
}

pub(crate) fn files(listener: Listener, path: PathBuf) -> io::Result<()> {
    let Listener::Tcp(listener) = listener else {
        return Err(io::Error::other("files are sent over TCP"));
    };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_io().build()?;
    listener.set_nonblocking(true)?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            let mut file = File::open(&path).await?;
            tokio::spawn(async move { tokio::io::copy(&mut file, &mut stream).await });
        }
    })
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    // All peers use this size. A message that fills it exactly (4 KiB) costs one more read,
    // because only a short read shows tokio that no data is left.
    let mut buffer = vec![0; 4096];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
        if buffer[0] == b'Q' {
            return Ok(());
        }
    }
}
