//! An echo server that prints the system's statistics of the connection.
//!
//! It serves one client and exits. During the connection `ss -ti` shows the same figures.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example tcp_info -- 127.0.0.1 9999
//! ```
//!
//! Connect with `echo_tcp_client`, in either language, or with `nc 127.0.0.1 9999`.

use std::io;

use sock::{AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, Socket};

mod common;

/// Prints one line of the current statistics.
fn print_info(sock: &Socket) -> io::Result<()> {
    let info = sock.tcp_info()?;
    println!(
        "{}: {} bytes received, {} unread, {} segments retransmitted",
        info.state,
        // Old systems do not count them.
        info.bytes_received.map_or("?".into(), |bytes| bytes.to_string()),
        sock.recv_queue()?,
        info.total_retrans.unwrap_or_default(),
    );
    Ok(())
}

fn main() -> common::Result {
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
        // At end of file the state changes too.
        print_info(&sock)?;
        if data.is_empty() {
            break;
        }
        sock.sendall(&data)?;
    }
    // The round-trip time. For a new connection it is only an estimate.
    if let Some(rtt) = sock.tcp_info()?.rtt {
        println!("round trip: {} µs", rtt.as_micros());
    }
    Ok(())
}
