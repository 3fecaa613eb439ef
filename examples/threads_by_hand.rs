//! A thread for each client, written by hand.
//!
//! Each line comes back in capitals. `threads` is the same server in the words
//! of socketserver. It runs until you interrupt it.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example threads_by_hand -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `many_clients`, in either language, or with
//! `nc 127.0.0.1 9999` from several terminals at once.

use std::io::{self, BufRead};
use std::thread;

use sock::{Address, Socket};

mod common;

fn serve(sock: Socket, peer: &Address) -> io::Result<()> {
    let mut lines = sock.makefile_rb();
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        println!("{peer}: {}", common::text(&line));
        sock.sendall(&line.to_ascii_uppercase())?;
        line.clear();
    }
    Ok(())
}

fn main() -> io::Result<()> {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let server = sock::create_server(address)?;
    println!("listening on {}", server.getsockname()?);
    loop {
        let (sock, peer) = server.accept()?;
        // The thread owns the socket from here on; this one goes back to
        // accept at once, so nobody waits for anybody.
        thread::spawn(move || {
            if let Err(err) = serve(sock, &peer) {
                eprintln!("{peer}: {err}");
            }
        });
    }
}
