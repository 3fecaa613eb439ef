//! A chat server in one thread, based on `selectors`.
//!
//! It forwards what a client sends to all other clients, and prints who joins and leaves. No
//! call blocks, so a client whose send buffer is full is disconnected. `chat` does the same
//! with a thread for each client.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example chat_polling -- 127.0.0.1 9999
//! ```
//!
//! Connect with `nc 127.0.0.1 9999` in several terminals.

use std::io::ErrorKind;

use sock::selectors::{DefaultSelector, EVENT_READ, SelectorKey};
use sock::{Address, Socket};

mod common;

/// The data of a key: the address of a client, `None` for the listener.
type Room = DefaultSelector<Socket, Option<Address>>;
type Key = SelectorKey<Socket, Option<Address>>;

/// Sends data to all clients except its sender, and returns the clients to which it could
/// not be sent completely.
fn broadcast(room: &Room, data: &[u8], from: &Key) -> Vec<Key> {
    let others = room.get_map().values().into_iter().filter(|key| key.data.is_some() && key.fd != from.fd);
    others.filter(|key| !key.fileobj.send(data).is_ok_and(|sent| sent == data.len())).collect()
}

fn main() -> common::Result {
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
                continue; // it has just been disconnected
            }
            let leaving = match key.fileobj.recv(4096) {
                Ok(data) if !data.is_empty() => broadcast(&room, &data, &key),
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
