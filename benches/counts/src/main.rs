//! What a request costs our servers, counted and not timed: the same on a slow
//! machine and on a busy one. `scripts/counts` calls it.
//!
//! A server serves some requests, and in a second run three times as many; the
//! difference is what requests cost, without the server's start and end. Load and
//! server share a CPU and go in lockstep: see the load generator's `rounds`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;

mod cases;
mod run;

use cases::{Case, Figures, Recorded};
use run::Runner;

#[derive(Parser)]
#[command(name = "scripts/counts", about = "Counts what a request costs our servers")]
struct Options {
    /// Writes down what is counted instead of comparing
    #[arg(long)]
    record: bool,
    /// Only cases whose name has this in it
    #[arg(long)]
    only: Option<String>,
}

/// What a figure may be more than was recorded: the few calls that a whole round
/// shares, and waits where a thread is or is not quicker than the next. One call or
/// one wait more is found out.
const MORE_CALLS: f64 = 0.1;
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
        if !models.iter().any(|model| model == case.model) {
            println!("{name:18} there is no such server yet");
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
        println!("\nMore than was recorded. If it has to be so: scripts/counts --record, and say why.");
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

/// The compiler's version, since instructions are its doing.
fn compiler() -> Result<String, Box<dyn Error>> {
    let output = Command::new("rustc").arg("--version").output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().nth(1).ok_or("which rustc is this?")?.to_owned())
}
