//! A server that a second start of the same program replaces, without a lost connection.
//!
//! The first process listens. Each further process receives the listener through the Unix socket
//! PATH, and takes over as soon as it serves. The previous process finishes its requests and exits.
//! The answer to each line is the id of the process. After a change of the program, SIGUSR2 starts
//! the new version, which takes over in the same way.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example handover -- 127.0.0.1 9999 /tmp/handover
//! ```
//!
//! Run it again in a second terminal. Meanwhile connect with
//! `while echo who | nc -N 127.0.0.1 9999; do :; done`: each request is answered. With
//! `RUST_LOG=info` each step is logged.

#[cfg(unix)]
mod common;

#[cfg(unix)]
fn main() -> common::Result {
    use std::io::Write;
    use std::time::Duration;

    use sockserver::handover::{Handover, Upgrade};
    use sockserver::{ThreadingTCPServer, handler_fn};

    env_logger::init();
    let (host, port, path) = common::address_and("127.0.0.1", 9999, "PATH", "/tmp/handover");
    let answer = handler_fn(|cx| {
        cx.rfile.readline(1024)?;
        writeln!(cx.wfile, "{}", std::process::id())
    });
    let server = ThreadingTCPServer::builder(answer)
        .allow_reuse_address(true)
        .drain_on_signals(Duration::from_secs(10))
        .handover(Handover::at(path))
        .upgrade_on_signal(Upgrade::to_current_program()?)
        .bind_or_take_over((host, port))?;
    println!("listening on {}", server.server_address());
    server.serve_forever()?;
    Ok(())
}

#[cfg(not(unix))]
fn main() {
    println!("this program needs a Unix system");
}
