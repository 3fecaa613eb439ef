//! A chat in one thread: sockets of `sock` in a poller of the crate `polling`.
//!
//! What one client says all the others hear. No call waits: a client that cannot
//! take a piece at once is dropped. `chat` is the same with a thread for each.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example chat_polling -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `nc 127.0.0.1 9999` from several terminals.

use std::collections::HashMap;
use std::io::{self, ErrorKind};

use polling::{Event, Events, Poller};
use sock::{Address, Socket};

mod common;

/// The listener's key; clients have the numbers from 1 on.
const LISTENER: usize = 0;

/// Has the poller tell once that something is to be read.
#[allow(unsafe_code)]
fn watch(poller: &Poller, sock: &Socket, key: usize) -> io::Result<()> {
    // SAFETY: every socket is taken out of the poller before it is closed.
    unsafe { poller.add(sock, Event::readable(key)) }
}

/// Gives a piece to everybody but the one it is from, and returns who cannot take it.
fn tell(room: &HashMap<usize, (Socket, Address)>, piece: &[u8], from: usize) -> Vec<usize> {
    let others = room.iter().filter(|(key, _)| **key != from);
    let failed = others.filter(|(_, (sock, _))| !sock.send(piece).is_ok_and(|sent| sent == piece.len()));
    failed.map(|(key, _)| *key).collect()
}

fn main() -> io::Result<()> {
    env_logger::init();
    let listener = sock::create_server(common::address("127.0.0.1", 9999))?;
    listener.setblocking(false)?;
    println!("listening on {}", listener.getsockname()?);

    let poller = Poller::new()?;
    watch(&poller, &listener, LISTENER)?;
    let mut room = HashMap::new();
    let mut events = Events::new();
    for number in 1.. {
        events.clear();
        poller.wait(&mut events, None)?;
        for event in events.iter() {
            let mut leaving = Vec::new();
            if event.key == LISTENER {
                let (sock, address) = listener.accept()?;
                sock.setblocking(false)?;
                watch(&poller, &sock, number)?;
                println!("{address} joins");
                room.insert(number, (sock, address));
                poller.modify(&listener, Event::readable(LISTENER))?;
                continue;
            }
            let Some((sock, _)) = room.get(&event.key) else { continue };
            match sock.recv(4096) {
                Ok(piece) if piece.is_empty() => leaving.push(event.key),
                Ok(piece) => leaving = tell(&room, &piece, event.key),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => leaving.push(event.key),
            }
            for key in leaving {
                if let Some((sock, address)) = room.remove(&key) {
                    println!("{address} leaves");
                    poller.delete(&sock)?;
                }
            }
            if let Some((sock, _)) = room.get(&event.key) {
                poller.modify(sock, Event::readable(event.key))?;
            }
        }
    }
    Ok(())
}
