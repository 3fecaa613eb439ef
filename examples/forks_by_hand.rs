//! A server with a process for each client, without socketserver.
//!
//! It prints each line and sends it back in capitals, until it is interrupted. `forks` is
//! the same server with socketserver.
//!
//! The Python program forks. Rust has no safe fork, because only the calling thread
//! survives in the child while locks of other threads stay locked. So this program starts
//! itself again for each client, with the connection as standard input, as inetd does.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example forks_by_hand -- 127.0.0.1 9999
//! ```
//!
//! Connect with `many_clients`, in either language, or with `nc 127.0.0.1 9999` in several
//! terminals.

use std::env;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};

use sock::Socket;

mod common;

/// Set in the environment of the child processes.
const CHILD: &str = "FORKS_BY_HAND_CHILD";

fn serve(sock: &Socket) -> io::Result<()> {
    let peer = sock.getpeername()?;
    // A line of more than 64 KiB is an error.
    for line in &mut sock.makefile_rb() {
        let line = line?;
        println!("{peer}: {}", common::text(&line));
        sock.sendall(&line.to_ascii_uppercase())?;
    }
    Ok(())
}

fn main() -> common::Result {
    env_logger::init();
    if env::var_os(CHILD).is_some() {
        let connection = io::stdin().as_fd().try_clone_to_owned()?;
        return Ok(serve(&Socket::try_from(connection)?)?);
    }

    let address = common::address("127.0.0.1", 9999);
    let server = sock::create_server(address)?;
    println!("listening on {}", server.getsockname()?);
    let mut children: Vec<Child> = Vec::new();
    loop {
        let (sock, _) = server.accept()?;
        // A child that has exited stays a zombie until it is waited for.
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));

        // The command owns the parent's copy of the socket and closes it. If it stayed open, the
        // client would never receive an end of file.
        let child = Command::new(env::current_exe()?).env(CHILD, "").stdin(OwnedFd::from(sock)).spawn()?;
        children.push(child);
    }
}
