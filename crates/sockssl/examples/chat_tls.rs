//! A chat server over TLS that forwards each line of a client to all other clients.
//!
//! It is `chat` with one hook more. Other handlers send through a `ClientHandle`, which encrypts.
//! The first line of a client is its name. A client that does not read is disconnected after
//! five seconds. The server prints who joins and leaves.
//!
//! Make certificates with `make_ca` first, then run it (the arguments shown are the
//! defaults):
//!
//! ```text
//! cargo run -p sockssl --example chat_tls -- 127.0.0.1 8443 certs
//! ```
//!
//! Connect with `openssl s_client -quiet -connect 127.0.0.1:8443 -CAfile certs/ca.pem` in several
//! terminals.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sock::SHUT_RDWR;
use sockserver::{ClientHandle, StreamContext, StreamRequestHandler, ThreadingTCPServer};

mod common;
#[path = "common/tls.rs"]
mod tls;

/// The longest line of a client, in bytes.
const MAX_LINE: usize = 1000;

/// The connected clients.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Vec<ClientHandle>>>);

impl Room {
    fn members(&self) -> MutexGuard<'_, Vec<ClientHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a line to all members except its sender.
    fn broadcast(&self, line: &str, from: &ClientHandle) {
        // A copy, so that clients join and leave while a send waits.
        let members = self.members().clone();
        for member in members.iter().filter(|member| *member != from) {
            if member.sendall(line.as_bytes()).is_err() {
                // Ends its handler, which is blocked in a read.
                let _ = member.shutdown(SHUT_RDWR);
                self.leave(member);
            }
        }
    }

    fn leave(&self, client: &ClientHandle) {
        self.members().retain(|member| member != client);
    }
}

struct Chat {
    room: Room,
}

impl StreamRequestHandler for Chat {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let name = common::text(&cx.rfile.readline(MAX_LINE)?);
        if name.is_empty() {
            return Ok(());
        }
        let client = cx.client_handle()?;
        self.room.members().push(client.clone());
        self.room.broadcast(&format!("* {name} joined\n"), &client);
        println!("{name} joins");
        loop {
            match cx.rfile.readline(MAX_LINE) {
                Ok(line) if !line.is_empty() => {
                    self.room.broadcast(&format!("{name}: {}\n", common::text(&line)), &client);
                }
                _ => break,
            }
        }
        self.room.leave(&client);
        println!("{name} leaves");
        self.room.broadcast(&format!("* {name} left\n"), &client);
        Ok(())
    }
}

fn main() -> common::Result {
    env_logger::init();
    let (host, port, directory) = common::address_and("127.0.0.1", 8443, "CERTS", "certs");
    let context = tls::server_context(&directory)?;
    let room = Room::default();
    let builder = ThreadingTCPServer::builder(move || Chat { room: room.clone() })
        .allow_reuse_address(true)
        // A client may be silent for hours after it has sent its name, but not before.
        .read_timeout(None)
        .request_timeout(None)
        .write_timeout(5);
    let server = tls::with_tls(builder, context).bind((host, port))?;
    println!("listening on {}", server.server_address());
    io::stdout().flush()?;
    Ok(server.serve_forever()?)
}
