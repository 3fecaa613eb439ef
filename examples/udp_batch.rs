//! A UDP server for many datagrams at a time: it takes all that are there with
//! one call, and answers all of them, in capitals, with another.
//!
//! The busier it is the less it costs: with one datagram waiting it is the same
//! as `udp`, with sixty-four it needs two calls instead of a hundred and
//! twenty-eight. It runs until you interrupt it.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example udp_batch -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `udp_client`, in either language, or with
//! `nc -u 127.0.0.1 9999`.

use std::io;

use sock::{AF_INET, RecvBatch, SOCK_DGRAM, Socket};

mod common;

fn main() -> io::Result<()> {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let server = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    server.bind(address)?;
    println!("listening on {}", server.getsockname()?);

    // Room that is made once: what comes is written into it each time anew.
    let mut batch = RecvBatch::new(64, 65535)?;
    loop {
        // Waits for the first datagram, and for no other.
        server.recvmmsg(&mut batch)?;
        let mut answers = Vec::new();
        for datagram in batch.iter() {
            println!("{} sent: {}", datagram.address(), common::text(datagram.data()));
            answers.push((datagram.data().to_ascii_uppercase(), datagram.address()));
        }

        // It stops at a datagram that does not go. UDP may lose any, so that one is
        // given up, and the others go on.
        let mut rest = &answers[..];
        while !rest.is_empty() {
            rest = match server.sendmmsg(rest) {
                Ok(sent) => &rest[sent.count..],
                Err(_) => &rest[1..],
            };
        }
    }
}
