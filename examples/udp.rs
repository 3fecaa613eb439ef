//! A UDP server: answers each datagram with its text in capitals.
//!
//! There is no listen and no accept: one socket serves all, and each datagram
//! brings the address to answer to. It runs until you interrupt it.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example udp -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `udp_client`, in either language, or with
//! `nc -u 127.0.0.1 9999`.

use std::io;

use sock::{AF_INET, SOCK_DGRAM, Socket};

mod common;

fn main() -> io::Result<()> {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let server = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    server.bind(address)?;
    println!("listening on {}", server.getsockname()?);

    loop {
        // What does not fit is lost with the rest of its datagram, so the
        // buffer takes the longest there can be.
        let (data, peer) = server.recvfrom(65535)?;
        println!("{peer} sent: {}", common::text(&data));
        server.sendto(&data.to_ascii_uppercase(), &peer)?;
    }
}
