//! A server with a thread for each client, without socketserver.
//!
//! It prints each line and sends it back in capitals, until it is interrupted. `threads` is
//! the same server with socketserver.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example threads_by_hand -- 127.0.0.1 9999
//! ```
//!
//! Connect with `many_clients`, in either language, or with `nc 127.0.0.1 9999` in several
//! terminals.

use std::io;
use std::thread;

use sock::{Address, Socket};

mod common;

fn serve(sock: Socket, peer: &Address) -> io::Result<()> {
    // A line of more than 64 KiB is an error.
    for line in &mut sock.makefile_rb() {
        let line = line?;
        println!("{peer}: {}", common::text(&line));
        sock.sendall(&line.to_ascii_uppercase())?;
    }
    Ok(())
}

fn main() -> common::Result {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let server = sock::create_server(address)?;
    println!("listening on {}", server.getsockname()?);
    loop {
        let (sock, peer) = server.accept()?;
        // The new thread owns the socket. This thread continues to accept, so no client waits for
        // another.
        thread::spawn(move || {
            if let Err(err) = serve(sock, &peer) {
                eprintln!("{peer}: {err}");
            }
        });
    }
}
