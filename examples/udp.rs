//! A UDP server that sends each datagram back in capitals.
//!
//! It needs neither listen nor accept. One socket serves all clients, and each datagram
//! contains the address for the answer. It prints each datagram, and runs until it is
//! interrupted.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example udp -- 127.0.0.1 9999
//! ```
//!
//! Connect with `udp_client`, in either language, or with `nc -u 127.0.0.1 9999`.

use sock::{AF_INET, SOCK_DGRAM, Socket};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let server = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    server.bind(address)?;
    println!("listening on {}", server.getsockname()?);

    loop {
        // Data that does not fit into the buffer is lost, so the buffer has the maximum size of a
        // datagram.
        let (data, peer) = server.recvfrom(65535)?;
        println!("{peer} sent: {}", common::text(&data));
        server.sendto(&data.to_ascii_uppercase(), &peer)?;
    }
}
