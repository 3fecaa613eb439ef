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
mod classes;
#[cfg(unix)]
mod commands;
#[cfg(unix)]
mod options;
#[cfg(unix)]
mod report;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    env_logger::init();
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
