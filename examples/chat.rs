//! A chat server that forwards each line of a client to all other clients.
//!
//! The first line of a client is its name. A client that is a hundred lines behind is
//! disconnected. Without such a limit a client that does not read would fill the memory or
//! block the others. The server prints who joins, leaves and is disconnected.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example chat -- 127.0.0.1 9999
//! ```
//!
//! Connect with `nc 127.0.0.1 9999` in several terminals.

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::thread;

use sock::{SHUT_RDWR, Socket};
use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};

mod common;

/// The number of lines that a client may be behind.
const MAX_QUEUED: usize = 100;

/// The connected clients.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Vec<Member>>>);

struct Member {
    name: String,
    lines: SyncSender<Arc<str>>,
    /// A second descriptor, for disconnecting the client.
    socket: Arc<Socket>,
}

impl Room {
    /// Sends a line to all members except its sender.
    fn broadcast(&self, line: &str, from: &Arc<Socket>) {
        let line: Arc<str> = line.into();
        self.0.lock().unwrap().retain(|member| {
            if Arc::ptr_eq(&member.socket, from) {
                return true;
            }
            match member.lines.try_send(Arc::clone(&line)) {
                Ok(()) => true,
                Err(TrySendError::Disconnected(_)) => false,
                Err(TrySendError::Full(_)) => {
                    println!("{} is disconnected: {MAX_QUEUED} lines behind", member.name);
                    // Ends its handler, which is blocked in a read, and its writer.
                    let _ = member.socket.shutdown(SHUT_RDWR);
                    false
                }
            }
        });
    }

    fn leave(&self, socket: &Arc<Socket>) {
        self.0.lock().unwrap().retain(|member| !Arc::ptr_eq(&member.socket, socket));
    }
}

struct Chat {
    room: Room,
}

impl StreamRequestHandler for Chat {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut name = String::new();
        if cx.rfile.read_line(&mut name)? == 0 {
            return Ok(());
        }
        let name = name.trim_end().to_owned();
        let socket = Arc::new(cx.request.socket().dup()?);
        let (lines, to_write) = mpsc::sync_channel::<Arc<str>>(MAX_QUEUED);
        self.room.0.lock().unwrap().push(Member { name: name.clone(), lines, socket: Arc::clone(&socket) });
        self.room.broadcast(&format!("* {name} joined\n"), &socket);
        println!("{name} joins");

        let request = cx.request;
        let rfile = &mut cx.rfile;
        thread::scope(|scope| {
            // Ends when the client is removed from the room or disconnects.
            scope.spawn(move || to_write.iter().try_for_each(|line| request.sendall(line.as_bytes())));
            let mut line = String::new();
            while rfile.read_line(&mut line).is_ok_and(|length| length > 0) {
                self.room.broadcast(&format!("{name}: {}\n", line.trim_end()), &socket);
                line.clear();
            }
            self.room.leave(&socket);
            let _ = socket.shutdown(SHUT_RDWR);
        });
        println!("{name} leaves");
        self.room.broadcast(&format!("* {name} left\n"), &socket);
        Ok(())
    }
}

fn main() -> io::Result<()> {
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
    server.serve_forever()
}
