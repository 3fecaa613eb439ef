//! Tests that need their own process: forks, signals, and counts of descriptors, threads and child
//! processes, which other tests would disturb.
//!
//! Every test is a run of this program with `--alone NAME`, in which the test is the only thread.

mod cpython;
mod descriptors;
mod drain_on_signals;
mod forking;
mod forking_outcomes;
mod nothing_left;
mod preforking;
mod selectors;
mod signals;
#[path = "../../crates/sockserver/tests/support/mod.rs"]
mod support;
mod tls;
mod unix_mode;

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

/// The name and the function of a test, which panics if the test fails.
type Test = (&'static str, fn());

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let tests = [
        cpython::TESTS,
        descriptors::TESTS,
        drain_on_signals::TESTS,
        forking::TESTS,
        forking_outcomes::TESTS,
        nothing_left::TESTS,
        preforking::TESTS,
        selectors::TESTS,
        signals::TESTS,
        tls::TESTS,
        unix_mode::TESTS,
    ]
    .concat();
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, name] = &arguments[..] {
        if flag == "--alone" {
            let mut all = tests
                .iter()
                .chain(drain_on_signals::HELPERS)
                .chain(forking::HELPERS)
                .chain(preforking::HELPERS)
                .chain(tls::HELPERS)
                .chain(unix_mode::HELPERS);
            let (_, test) = all.find(|(known, _)| known == name).expect("no test has this name");
            test();
            return ExitCode::SUCCESS;
        }
    }
    let trials = tests.into_iter().map(|(name, _)| Trial::test(name, move || run_alone(name))).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn run_alone(name: &str) -> Result<(), Failed> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program)
        .args(["--alone", name])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stderr = child.stderr.take().ok_or("no pipe for stderr")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        let _ = sender.send(text);
    });
    let text = match receiver.recv_timeout(LIMIT) {
        Ok(text) => text,
        Err(_) => {
            child.kill()?;
            // Children of the test may keep the pipe open.
            let text = receiver.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
            format!("still running after {LIMIT:?}\n{text}")
        }
    };
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("{status}\n{text}").into()) }
}
