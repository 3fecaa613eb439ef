//! A UDP client. It sends one datagram and prints the answer.
//!
//! Start `udp` first, in either language, then run it (the arguments shown are the
//! defaults):
//!
//! ```text
//! cargo run --example udp_client -- 127.0.0.1 9999
//! ```
//!
//! To act as the server, run `nc -u -l 127.0.0.1 9999` and type the answer.

use std::time::Duration;

use sock::{AF_INET, SOCK_DGRAM, Socket};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    // A datagram can be lost without an error, and there is no connect that could fail. So the
    // wait is limited.
    sock.settimeout(Duration::from_secs(5))?;
    sock.sendto(b"hello over udp\n", address)?;
    let (answer, server) = sock.recvfrom(65535)?;
    println!("{server} answers: {}", common::text(&answer));
    Ok(())
}
