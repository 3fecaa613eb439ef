//! A threaded echo server in a dozen lines, for a first start.
//!
//! It runs until it is interrupted, and prints how to connect to it.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example echo_threading -- 127.0.0.1 9999
//! ```
//!
//! Connect with `echo_tcp_client`, in either language, with `nc 127.0.0.1 9999`, or from
//! Python with the lines that the server prints.

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

fn main() -> common::Result {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let server = ThreadingTCPServer::builder(|| Echo).allow_reuse_address(true).bind(address)?;
    // The actual address. With port 0 the system chooses a free port.
    let address = server.server_address();
    println!("echo is listening on {address}, a thread for each connection");
    if let (Some(host), Some(port)) = (address.ip(), address.port()) {
        println!("connect with: nc {host} {port}");
        println!("or in Python:");
        println!("    import socket");
        println!("    sock = socket.create_connection((\"{host}\", {port}))");
        println!("    sock.sendall(b\"hello\\n\")");
        println!("    print(sock.recv(1024))");
    }
    Ok(server.serve_forever()?)
}
