//! A chat: what one client says all the others hear.
//!
//! The first line is the client's name, each further line goes to everybody else.
//! Nobody waits for a client that does not read: who is a hundred lines behind is
//! dropped. That is this program's policy; without one, one sleeping client would
//! fill the memory, or stop the talk.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example chat -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `nc 127.0.0.1 9999` from several terminals.

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::thread;

use sock::{SHUT_RDWR, Socket};
use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};

mod common;

/// How many lines a client may be behind.
const MOST_BEHIND: usize = 100;

/// Everybody who is here.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Vec<Member>>>);

struct Member {
    name: String,
    lines: SyncSender<Arc<str>>,
    /// A second descriptor, to drop the client with.
    socket: Arc<Socket>,
}

impl Room {
    /// Gives a line to everybody but the one it is from.
    fn tell(&self, line: &str, from: &Arc<Socket>) {
        let line: Arc<str> = line.into();
        self.0.lock().unwrap().retain(|member| {
            if Arc::ptr_eq(&member.socket, from) {
                return true;
            }
            match member.lines.try_send(Arc::clone(&line)) {
                Ok(()) => true,
                Err(TrySendError::Disconnected(_)) => false,
                Err(TrySendError::Full(_)) => {
                    println!("{} is dropped: {MOST_BEHIND} lines behind", member.name);
                    // Ends its handler, which waits to read, and its writer.
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

struct Talk {
    room: Room,
}

impl StreamRequestHandler for Talk {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut name = String::new();
        if cx.rfile.read_line(&mut name)? == 0 {
            return Ok(());
        }
        let name = name.trim_end().to_owned();
        let socket = Arc::new(cx.request.socket().dup()?);
        let (lines, to_write) = mpsc::sync_channel::<Arc<str>>(MOST_BEHIND);
        self.room.0.lock().unwrap().push(Member { name: name.clone(), lines, socket: Arc::clone(&socket) });
        self.room.tell(&format!("* {name} is here\n"), &socket);
        println!("{name} joins");

        let request = cx.request;
        let rfile = &mut cx.rfile;
        thread::scope(|scope| {
            // It ends when the room forgets the client, or the client has gone.
            scope.spawn(move || to_write.iter().try_for_each(|line| request.sendall(line.as_bytes())));
            let mut line = String::new();
            while rfile.read_line(&mut line).is_ok_and(|length| length > 0) {
                self.room.tell(&format!("{name}: {}\n", line.trim_end()), &socket);
                line.clear();
            }
            self.room.leave(&socket);
            let _ = socket.shutdown(SHUT_RDWR);
        });
        println!("{name} leaves");
        self.room.tell(&format!("* {name} has gone\n"), &socket);
        Ok(())
    }
}

fn main() -> io::Result<()> {
    env_logger::init();
    let room = Room::default();
    let server = ThreadingTCPServer::builder(move || Talk { room: room.clone() })
        .allow_reuse_address(true)
        // One may listen for hours; who does not even give a name may not.
        .read_timeout(None)
        .request_timeout(None)
        .bind(common::address("127.0.0.1", 9999))?;
    println!("listening on {}", server.server_address());
    io::stdout().flush()?;
    server.serve_forever()
}
