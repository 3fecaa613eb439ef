//! The server of the fault table: any class, any limit, and a handler that executes the commands of
//! its client. See `docs/reliability.md`.
//!
//! ```text
//! fault_server threading 127.0.0.1:0 first_byte=500 max=64 drain=2000
//! ```
//!
//! It prints `ready pid=… address=…`, a line `stats …` for each line on its standard input (a forking
//! server, which has no thread to read it, for each SIGUSR1), and at the end `drained …` and
//! `stats …`. The exit status is 1 if a drain aborted requests and 3 if serving failed. Times are in
//! milliseconds.

#[cfg(unix)]
use std::io::Write;
#[cfg(unix)]
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(unix)]
mod classes;
#[cfg(unix)]
mod commands;
#[cfg(unix)]
mod options;
#[cfg(unix)]
mod report;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    // The second of each line is needed to check how many there are of a kind per second.
    env_logger::builder()
        .format(|line, record| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            writeln!(line, "[{now}Z {:5} {}] {}", record.level(), record.target(), record.args())
        })
        .init();
    let options = options::Options::from_command_line();
    match classes::run(&options) {
        Ok(code) => code,
        Err(error) => {
            println!("failed kind={:?} error={error}", error.kind());
            std::process::ExitCode::from(3)
        }
    }
}

#[cfg(not(unix))]
fn main() {
    eprintln!("the fault table runs on Unix only");
}
