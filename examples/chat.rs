//! A chat server that forwards each line of a client to all other clients.
//!
//! The first line of a client is its name. A client that is a hundred lines behind is
//! disconnected. Without such a limit a client that does not read would fill the memory or
//! block the others. The server prints which clients join, leave and are disconnected.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example chat -- 127.0.0.1 9999
//! ```
//!
//! Connect with `nc 127.0.0.1 9999` in several terminals.

use std::io::{self, Write};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::thread;

use sock::SHUT_RDWR;
use sockserver::{ClientHandle, StreamContext, StreamRequestHandler, ThreadingTCPServer};

mod common;

/// The number of lines that a client may be behind.
const MAX_QUEUED: usize = 100;

/// The longest line of a client, in bytes.
const MAX_LINE: usize = 1000;

/// The connected clients.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Vec<Member>>>);

struct Member {
    name: String,
    lines: SyncSender<Arc<str>>,
    /// For disconnecting the client.
    client: ClientHandle,
}

impl Room {
    /// Sends a line to all members except its sender.
    fn broadcast(&self, line: &str, from: &ClientHandle) {
        let line: Arc<str> = line.into();
        self.0.lock().unwrap().retain(|member| {
            if member.client == *from {
                return true;
            }
            match member.lines.try_send(Arc::clone(&line)) {
                Ok(()) => true,
                Err(TrySendError::Disconnected(_)) => false,
                Err(TrySendError::Full(_)) => {
                    println!("{} is disconnected: {MAX_QUEUED} lines behind", member.name);
                    // Ends its handler, which is blocked in a read, and its writer.
                    let _ = member.client.shutdown(SHUT_RDWR);
                    false
                }
            }
        });
    }

    fn leave(&self, client: &ClientHandle) {
        self.0.lock().unwrap().retain(|member| member.client != *client);
    }
}

struct Chat {
    room: Room,
}

impl StreamRequestHandler for Chat {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let name = cx.rfile.readline(MAX_LINE)?;
        if name.is_empty() {
            return Ok(());
        }
        let name = common::text(&name);
        let client = cx.client_handle()?;
        let (lines, to_write) = mpsc::sync_channel::<Arc<str>>(MAX_QUEUED);
        self.room.0.lock().unwrap().push(Member { name: name.clone(), lines, client: client.clone() });
        self.room.broadcast(&format!("* {name} joined\n"), &client);
        println!("{name} joins");

        let request = cx.request;
        let rfile = &mut cx.rfile;
        thread::scope(|scope| {
            // Ends when the client is removed from the room or disconnects.
            scope.spawn(move || to_write.iter().try_for_each(|line| request.sendall(line.as_bytes())));
            while let Ok(line) = rfile.readline(MAX_LINE) {
                if line.is_empty() {
                    break;
                }
                self.room.broadcast(&format!("{name}: {}\n", common::text(&line)), &client);
            }
            self.room.leave(&client);
            let _ = client.shutdown(SHUT_RDWR);
        });
        println!("{name} leaves");
        self.room.broadcast(&format!("* {name} left\n"), &client);
        Ok(())
    }
}

fn main() -> common::Result {
    env_logger::init();
    let room = Room::default();
    let server = ThreadingTCPServer::builder(move || Chat { room: room.clone() })
        .allow_reuse_address(true)
        // A client may be silent for hours after it has sent its name, but not before.
        .read_timeout(None)
        .request_timeout(None)
        .bind(common::address("127.0.0.1", 9999))?;
    println!("listening on {}", server.server_address());
    io::stdout().flush()?;
    Ok(server.serve_forever()?)
}
