//! A chat in one thread, over `selectors`.
//!
//! What one client sends goes to all others. No call waits: a client that cannot
//! take a piece at once is dropped. `chat` is the same with a thread for each.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example chat_polling -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `nc 127.0.0.1 9999` from several terminals.

use std::io::{self, ErrorKind};

use sock::selectors::{DefaultSelector, EVENT_READ, SelectorKey};
use sock::{Address, Socket};

mod common;

/// The data of a key: the address of a client, `None` for the listener.
type Room = DefaultSelector<Socket, Option<Address>>;
type Key = SelectorKey<Socket, Option<Address>>;

/// Sends a piece to every client but the one it is from, and returns those that
/// cannot take it.
fn send_to_others(room: &Room, piece: &[u8], from: &Key) -> Vec<Key> {
    let others = room.get_map().values().into_iter().filter(|key| key.data.is_some() && key.fd != from.fd);
    others.filter(|key| !key.fileobj.send(piece).is_ok_and(|sent| sent == piece.len())).collect()
}

fn main() -> io::Result<()> {
    env_logger::init();
    let listener = sock::create_server(common::address("127.0.0.1", 9999))?;
    listener.setblocking(false)?;
    println!("listening on {}", listener.getsockname()?);

    let room = Room::new()?;
    room.register(listener, EVENT_READ, None)?;
    loop {
        for (key, _) in room.select(None)? {
            if key.data.is_none() {
                let (sock, address) = key.fileobj.accept()?;
                sock.setblocking(false)?;
                println!("{address} joins");
                room.register(sock, EVENT_READ, Some(address))?;
                continue;
            }
            if !room.get_map().contains(&key) {
                continue; // it has just been dropped
            }
            let leaving = match key.fileobj.recv(4096) {
                Ok(piece) if !piece.is_empty() => send_to_others(&room, &piece, &key),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                _ => vec![key],
            };
            for gone in leaving {
                if let Some(address) = &*gone.data {
                    println!("{address} leaves");
                }
                room.unregister(&gone)?;
            }
        }
    }
}
