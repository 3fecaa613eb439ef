//! An echo that tells how the connection fared: what the system counts of it.
//!
//! It serves one client and ends. While you talk to it, `ss -ti` shows the same
//! numbers from outside.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example tcp_info -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `echo_tcp_client`, in either language, or with
//! `nc 127.0.0.1 9999`.

use std::io;

use sock::{AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, Socket};

mod common;

/// One line of what the system knows now.
fn tell(sock: &Socket) -> io::Result<()> {
    let info = sock.tcp_info()?;
    println!(
        "{}: {} bytes came, {} are unread, {} segments were sent again",
        info.state,
        // An old system does not count them.
        info.bytes_received.map_or("?".into(), |bytes| bytes.to_string()),
        sock.recv_queue()?,
        info.total_retrans,
    );
    Ok(())
}

fn main() -> io::Result<()> {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    server.setsockopt(SOL_SOCKET, SO_REUSEADDR, true)?;
    server.bind(address)?;
    server.listen(1)?;
    println!("listening on {}", server.getsockname()?);

    let (sock, peer) = server.accept()?;
    println!("{peer} connected");
    loop {
        let data = sock.recv(1024)?;
        // At the end of the peer's bytes the state says so as well.
        tell(&sock)?;
        if data.is_empty() {
            break;
        }
        sock.sendall(&data)?;
    }
    // The time there and back: of a connection that has just begun it is a guess.
    println!("round trip: {} µs", sock.tcp_info()?.rtt.as_micros());
    Ok(())
}
