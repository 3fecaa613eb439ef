//! A UDP server that processes datagrams in batches, and sends them back in capitals.
//!
//! One call receives all waiting datagrams, and another one sends all answers. For one
//! datagram the cost is that of `udp`. For 64 datagrams it needs two calls instead of 128.
//! It prints each datagram, and runs until it is interrupted.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example udp_batch -- 127.0.0.1 9999
//! ```
//!
//! Connect with `udp_client`, in either language, or with `nc -u 127.0.0.1 9999`.

use sock::{AF_INET, RecvBatch, SOCK_DGRAM, Socket};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let server = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    server.bind(address)?;
    println!("listening on {}", server.getsockname()?);

    // The buffers are allocated once and reused.
    let mut batch = RecvBatch::new(64, 65535)?;
    loop {
        // Waits for the first datagram, but not for more.
        server.recvmmsg(&mut batch)?;
        let mut answers = Vec::new();
        for datagram in batch.iter() {
            println!("{} sent: {}", datagram.address(), common::text(datagram.data()));
            answers.push((datagram.data().to_ascii_uppercase(), datagram.address()));
        }

        // sendmmsg stops at a datagram that cannot be sent. UDP does not guarantee delivery, so
        // that datagram is skipped.
        let mut rest = &answers[..];
        while !rest.is_empty() {
            rest = match server.sendmmsg(rest) {
                Ok(sent) => &rest[sent.count..],
                Err(_) => &rest[1..],
            };
        }
    }
}
