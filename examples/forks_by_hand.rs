//! A process for each client, written by hand.
//!
//! Each line comes back in capitals. `forks` is the same server in the words of
//! socketserver. It runs until you interrupt it.
//!
//! The Python twin forks; Rust does not: after a fork only the calling thread
//! lives on, while the locks of the others stay locked, so the standard library
//! offers none and calling libc's is unsafe. Instead this program starts itself
//! anew for each client, with the connection as the child's standard input, as
//! inetd has always done.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example forks_by_hand -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `many_clients`, in either language, or with
//! `nc 127.0.0.1 9999` from several terminals at once.

use std::env;
use std::io::{self, BufRead};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};

use sock::Socket;

mod common;

/// Set for the children, which learn from it that they are.
const CHILD: &str = "FORKS_BY_HAND_CHILD";

fn serve(sock: &Socket) -> io::Result<()> {
    let peer = sock.getpeername()?;
    let mut lines = sock.makefile_rb();
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        println!("{peer}: {}", common::text(&line));
        sock.sendall(&line.to_ascii_uppercase())?;
        line.clear();
    }
    Ok(())
}

fn main() -> io::Result<()> {
    env_logger::init();
    if env::var_os(CHILD).is_some() {
        let connection = io::stdin().as_fd().try_clone_to_owned()?;
        return serve(&Socket::try_from(connection)?);
    }

    let address = common::address("127.0.0.1", 9999);
    let server = sock::create_server(address)?;
    println!("listening on {}", server.getsockname()?);
    let mut children: Vec<Child> = Vec::new();
    loop {
        let (sock, _) = server.accept()?;
        // A child that has ended stays a zombie until it is asked about.
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));

        // Our own copy of the socket goes with the command; were it left open,
        // the client would never see the end of file.
        let child = Command::new(env::current_exe()?).env(CHILD, "").stdin(OwnedFd::from(sock)).spawn()?;
        children.push(child);
    }
}
