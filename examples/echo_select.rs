//! An echo server in one thread, after the example in Python's `selectors` documentation.
//!
//! The data of each key is the function to call when its socket is ready. The server prints
//! each client and what it receives.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example echo_select -- 127.0.0.1 9999
//! ```
//!
//! Connect with `nc 127.0.0.1 9999` in several terminals.

use std::io;

use sock::Socket;
use sock::selectors::{DefaultSelector, EVENT_READ, SelectorKey};

mod common;

type Selector = DefaultSelector<Socket, Callback>;
type Key = SelectorKey<Socket, Callback>;

struct Callback(fn(&Selector, &Key) -> io::Result<()>);

fn accept(sel: &Selector, key: &Key) -> io::Result<()> {
    let (conn, addr) = key.fileobj.accept()?; // should be ready
    println!("accepted {addr}");
    conn.setblocking(false)?;
    sel.register(conn, EVENT_READ, Callback(read))?;
    Ok(())
}

fn read(sel: &Selector, key: &Key) -> io::Result<()> {
    // Should be ready. A connection that was reset has ended.
    let data = key.fileobj.recv(1000).unwrap_or_default();
    println!("received {} bytes", data.len());
    // It hopes that the send need not wait, as the original does.
    if data.is_empty() || key.fileobj.send(&data).is_err() {
        println!("closing");
        sel.unregister(key)?; // closed with the last key of it
    }
    Ok(())
}

fn main() -> common::Result {
    env_logger::init();
    let sock = sock::create_server(common::address("127.0.0.1", 9999))?;
    sock.setblocking(false)?;
    println!("listening on {}", sock.getsockname()?);

    let sel = Selector::new()?;
    sel.register(sock, EVENT_READ, Callback(accept))?;
    loop {
        for (key, _mask) in sel.select(None)? {
            (key.data.0)(&sel, &key)?;
        }
    }
}
