//! Counts the costs of a request. Counts, unlike times, do not depend on the speed or the
//! load of the machine. `scripts/counts` runs this program.
//!
//! A server serves some requests, and in a second run three times as many. The difference is
//! the cost of the requests without the start and the end of the server. Load generator and
//! server share a CPU and run in lockstep; see the load generator's mode `rounds`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;

mod cases;
mod run;

use cases::{Case, Figures, Program, Recorded};
use run::Runner;

#[derive(Parser)]
#[command(name = "scripts/counts", about = "Counts the costs of a request of our servers")]
struct Options {
    /// Record the counts instead of comparing them
    #[arg(long)]
    record: bool,
    /// Only run cases whose name contains this text
    #[arg(long)]
    only: Option<String>,
}

/// How much a count may exceed the recorded one. Some calls are shared by a whole round, and
/// some waits depend on which thread is faster. One more call or wait per request is detected.
const MORE_CALLS: f64 = 0.25;
const MORE_WAITS: f64 = 0.35;
const MORE_INSTRUCTIONS: f64 = 0.03;

fn main() -> ExitCode {
    match check(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("counts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(options: &Options) -> Result<bool, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no folder above")?.to_owned();
    let release: PathBuf = std::env::current_exe()?.parent().ok_or("no folder")?.to_owned();
    let scratch = tempfile::tempdir()?;
    let runner = Runner { release, scratch: scratch.path().to_owned(), cpu: run::first_cpu()? };
    let compiler = compiler()?;
    let file = root.join("counts.txt");
    let mut recorded = Recorded::parse(&fs::read_to_string(&file)?)?;
    let models = runner.models()?;
    let (mut good, mut counted) = (true, BTreeMap::new());
    println!("{:18} {:>16} {:>16} {:>24}", "per request", "system calls", "waits", "instructions");
    for case in Case::all() {
        let name = case.name();
        if options.only.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
            continue;
        }
        if case.program == Program::Ours && !models.iter().any(|model| model == case.model) {
            println!("{name:18} no such server");
            continue;
        }
        let figures = runner.count(&case)?;
        if !options.record {
            good &= compare(&name, &figures, &recorded, &compiler);
        } else {
            println!("{name:18} {}", figures.show());
        }
        counted.insert(name, figures);
    }
    if options.record {
        recorded.set(&compiler, counted);
        fs::write(&file, recorded.render())?;
        println!("written to benches/counts.txt, instructions for {compiler}");
    } else if !good {
        println!(
            "\nThe counts exceed the record. If that is intended, run scripts/counts --record and give the reason."
        );
    }
    Ok(good)
}

fn compare(name: &str, now: &Figures, recorded: &Recorded, compiler: &str) -> bool {
    let Some(limits) = recorded.calls_and_waits(name) else {
        println!("{name:18} {}   NOT RECORDED: scripts/counts --record", now.show());
        return false;
    };
    let mut faults = Vec::new();
    if now.calls > limits.0 + MORE_CALLS {
        faults.push(format!("system calls were {:.2}", limits.0));
    }
    if now.waits > limits.1 + MORE_WAITS {
        faults.push(format!("waits were {:.2}", limits.1));
    }
    let mut notes = Vec::new();
    match (now.instructions, recorded.instructions(compiler, name)) {
        (None, _) => {}
        (_, None) => {
            notes.push("!!! instructions NOT COMPARED: none recorded for this compiler".to_owned())
        }
        (Some(instructions), Some(before)) => {
            let more = instructions / before - 1.0;
            if more > MORE_INSTRUCTIONS {
                faults.push(format!("instructions were {before:.0}, that is {:+.1} %", more * 100.0));
            } else if more < -MORE_INSTRUCTIONS {
                notes.push(format!("better than the {before:.0} recorded: scripts/counts --record"));
            }
        }
    }
    let fault = !faults.is_empty();
    let verdict = if fault { format!("FAILED: {}", faults.join("; ")) } else { "ok".into() };
    println!("{name:18} {}   {verdict} {}", now.show(), notes.join(" "));
    !fault
}

/// Returns the version of the compiler, on which the number of instructions depends.
fn compiler() -> Result<String, Box<dyn Error>> {
    let output = Command::new("rustc").arg("--version").output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().nth(1).ok_or("which rustc is this?")?.to_owned())
}
