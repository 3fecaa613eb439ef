//! One receive of data that is there.

use std::hint::black_box;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, send};
use sock::SocketReader;

use crate::compare::{Scenario, Variant, cpu_time};
use crate::ends::Sock;

const SIZE: usize = 64;
/// Messages that wait at once: few enough for any system's default buffers.
const WAITING: u64 = 64;

pub(crate) fn receive() -> Scenario {
    let long = Some(Duration::from_secs(60));
    let variants = vec![
        variant(
            "raw",
            |fd: &mut OwnedFd, buffer| {
                recv(fd.as_raw_fd(), buffer, MsgFlags::empty()).expect("data is there")
            },
            |fd| fd,
        ),
        variant(
            "std",
            |stream: &mut UnixStream, buffer| stream.read(buffer).expect("data is there"),
            UnixStream::from,
        ),
        variant("recv_into", receive_into, |fd| Sock::new(fd, None)),
        variant("recv_into, timeout", receive_into, move |fd| Sock::new(fd, long)),
        // Allocates.
        variant(
            "recv",
            |sock: &mut Sock, buffer| sock.0.recv(buffer.len()).expect("data is there").len(),
            |fd| Sock::new(fd, None),
        ),
        variant(
            "makefile",
            |reader: &mut SocketReader<'static>, buffer| reader.read(buffer).expect("data is there"),
            |fd| {
                // As large as a message, so that nothing is read ahead.
                SocketReader::new(&Box::leak(Box::new(Sock::new(fd, None))).0, SIZE)
            },
        ),
    ];
    let bounds = &[("recv_into", "raw", 1.05), ("recv_into, timeout", "raw", 1.05)];
    Scenario { name: "receive of 64 B that are there", variants, bounds }
}

fn receive_into(sock: &mut Sock, buffer: &mut [u8]) -> usize {
    sock.0.recv_into(buffer).expect("data is there")
}

/// Only receiving is timed.
fn variant<S: 'static>(
    name: &'static str,
    mut receive: impl FnMut(&mut S, &mut [u8]) -> usize + 'static,
    end: impl Fn(OwnedFd) -> S,
) -> Variant {
    let (ours, theirs) = UnixStream::pair().expect("two descriptors are free");
    let mut ours = end(ours.into());
    let mut buffer = [0; SIZE];
    Variant::timed(name, move |mut times| {
        let mut spent = Duration::ZERO;
        while times > 0 {
            let now = times.min(WAITING);
            for _ in 0..now {
                send(theirs.as_raw_fd(), &[b'x'; SIZE], MsgFlags::empty()).expect("there is room");
            }
            let begin = cpu_time();
            for _ in 0..now {
                let received = receive(&mut ours, black_box(&mut buffer));
                assert_eq!(received, SIZE);
            }
            spent += cpu_time() - begin;
            times -= now;
        }
        spent
    })
}
