//! The newcomer's server: a threaded echo in a dozen lines.
//!
//! It runs until you interrupt it, and prints how to talk to it.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example echo_threading -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `echo_tcp_client`, in either language, with
//! `nc 127.0.0.1 9999`, or from Python, as the server says when it starts.

use std::io;

use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};

mod common;

struct Echo;

impl StreamRequestHandler for Echo {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        io::copy(&mut cx.rfile, &mut cx.wfile)?;
        Ok(())
    }
}

fn main() -> io::Result<()> {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let server = ThreadingTCPServer::builder(|| Echo).allow_reuse_address(true).bind(address)?;
    // The address as the system gave it: port 0 asks for a free one.
    let address = server.server_address();
    println!("echo is listening on {address}, a thread for each connection");
    if let (Some(host), Some(port)) = (address.ip(), address.port()) {
        println!("talk to it: nc {host} {port}");
        println!("or in Python:");
        println!("    import socket");
        println!("    sock = socket.create_connection((\"{host}\", {port}))");
        println!("    sock.sendall(b\"hello\\n\")");
        println!("    print(sock.recv(1024))");
    }
    server.serve_forever()
}
