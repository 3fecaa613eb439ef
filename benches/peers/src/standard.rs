//! Servers based on `std`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::thread;

use crate::Listener;

trait Stream: Read + Write + Send + 'static {}

impl<S: Read + Write + Send + 'static> Stream for S {}

/// Passes each connection of a TCP or Unix listener to a function.
macro_rules! serve {
    ($listener:ident, $how:expr) => {
        match $listener {
            Listener::Tcp(listener) => ($how)(listener.incoming().flatten()),
            Listener::Unix(listener) => ($how)(listener.incoming().flatten()),
        }
    };
}

pub(crate) fn threads(listener: Listener) -> io::Result<()> {
    serve!(listener, threads_of)
}

/// A thread for each connection.
fn threads_of(streams: impl Iterator<Item = impl Stream>) -> io::Result<()> {
    for stream in streams {
        thread::spawn(move || echo(stream));
    }
    Ok(())
}

pub(crate) fn pool(listener: Listener, workers: usize) -> io::Result<()> {
    serve!(listener, |streams| pool_of(streams, workers))
}

/// A pool of threads that take connections from a channel.
fn pool_of<S: Stream>(streams: impl Iterator<Item = S>, workers: usize) -> io::Result<()> {
    let (sender, receiver) = crossbeam_channel::unbounded::<S>();
    for _ in 0..workers {
        let receiver = receiver.clone();
        thread::spawn(move || receiver.into_iter().for_each(|stream| drop(echo(stream))));
    }
    streams.for_each(|stream| sender.send(stream).expect("the workers never exit"));
    Ok(())
}

pub(crate) fn sequential(listener: Listener) -> io::Result<()> {
    serve!(listener, sequential_of)
}

/// One connection after another.
fn sequential_of(streams: impl Iterator<Item = impl Stream>) -> io::Result<()> {
    streams.for_each(|stream| drop(echo(stream)));
    Ok(())
}

pub(crate) fn udp(socket: UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 8192];
    loop {
        let (received, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..received], from)?;
    }
}

/// Sends the file to each client, in a thread per connection.
pub(crate) fn files(
    listener: Listener,
    path: PathBuf,
    send: fn(File, TcpStream) -> io::Result<()>,
) -> io::Result<()> {
    let Listener::Tcp(listener) = listener else {
        return Err(io::Error::other("files are sent over TCP"));
    };
    for stream in listener.incoming() {
        let (stream, file) = (stream?, File::open(&path)?);
        thread::spawn(move || send(file, stream));
    }
    Ok(())
}

pub(crate) fn copy(mut file: File, mut stream: TcpStream) -> io::Result<()> {
    io::copy(&mut file, &mut stream).map(drop)
}

pub(crate) fn read_write(mut file: File, mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 65536];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}

pub(crate) fn send_file(file: File, stream: TcpStream) -> io::Result<()> {
    while rustix::fs::sendfile(&stream, &file, None, 0x7fff_f000)? > 0 {}
    Ok(())
}

fn echo(mut stream: impl Stream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
        if buffer[0] == b'Q' {
            return Ok(());
        }
    }
}
