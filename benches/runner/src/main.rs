//! Measures servers in interleaved rounds (A B C …, then C B A …), so that changes of the
//! machine affect all of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

mod chart;
mod document;
mod machine;
mod measure;
mod modes;
mod results;
mod servers;
mod table;
mod targets;

use measure::{Bench, Report};
use modes::{MODES, Mode};
use results::{Results, Rounds, is_quiet};
use servers::Server;

#[derive(Parser)]
#[command(name = "benches/run", about = "Measures our servers and their peers in interleaved rounds")]
struct Options {
    /// Mode to measure. `all` measures every mode and updates docs/performance.md, `write`
    /// only updates it from the last results, and `list` prints the modes
    mode: String,
    /// Number of rounds, each of which measures every server once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each measurement in seconds
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Warm-up before each measurement in seconds
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
    /// Run the server on one CPU and the load generator on another (default of most modes)
    #[arg(long, conflicts_with = "unpinned")]
    pinned: bool,
    /// Do not pin the server and the load generator to a CPU
    #[arg(long)]
    unpinned: bool,
    /// Comma-separated servers to measure besides the reference: names or *patterns*
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Also count system calls and context switches (needs perf and root)
    #[arg(long)]
    counts: bool,
    /// How often to repeat a measurement that other processes disturbed
    #[arg(long, default_value_t = 2)]
    retries: usize,
    /// Compare our servers with an earlier build of them, given by the path of its `ours`.
    /// Peers are not measured, and no results are saved
    #[arg(long, value_name = "PROGRAM")]
    earlier: Option<PathBuf>,
    /// Size of the file for bulk modes in MiB
    #[arg(long, default_value_t = 512)]
    file_size: usize,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benches/run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no parent folder")?.to_owned();
    let target =
        std::env::current_exe()?.ancestors().nth(2).ok_or("cannot find the target folder")?.to_owned();
    let (figures, page) = (target.join("figures"), root.join("../docs/performance.md"));
    let chosen: Vec<&Mode> = match options.mode.as_str() {
        "list" => {
            MODES.iter().for_each(|mode| println!("{:10} {}", mode.name, mode.title));
            return Ok(());
        }
        "write" => Vec::new(),
        "all" => MODES.iter().filter(|mode| mode.in_all).collect(),
        name => vec![
            modes::named(name)
                .ok_or_else(|| format!("unknown mode {name}; `benches/run list` prints the modes"))?,
        ],
    };
    for mode in &chosen {
        let results = measure_mode(options, mode, root.clone(), target.clone())?;
        if options.earlier.is_some() {
            println!("\n{}\n\n{}", mode.title, table::beside_earlier(&results));
            continue;
        }
        results.save(&figures)?;
        let svg = figures.join(format!("{}.svg", mode.name));
        chart::draw(mode, &results, &svg)?;
        println!("\n{}\n\n{}\n\n{}", mode.title, table::legend(&results), table::of(mode, &results));
        let all = BTreeMap::from([(results.mode.clone(), results)]);
        println!("{}\nchart: {}", targets::table(&all, Some(mode.name)), svg.display());
    }
    if options.earlier.is_none() && matches!(options.mode.as_str(), "all" | "write") {
        document::write(&page, &Results::load_all(&figures))?;
        println!("written: {}", page.display());
    }
    Ok(())
}

fn measure_mode(
    options: &Options,
    mode: &Mode,
    root: PathBuf,
    target: PathBuf,
) -> Result<Results, Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let pinned = options.pinned || mode.pinned && !options.unpinned;
    let cpus = if pinned { two_cpus() } else { None };
    if pinned && cpus.is_none() {
        eprintln!("warning: only one CPU: server and load generator are NOT PINNED and share it");
    }
    let bench = Bench {
        root,
        target,
        earlier: options.earlier.clone(),
        scratch: scratch.path().to_owned(),
        seconds: options.seconds,
        warm_up: options.warm_up,
        cpus,
    };
    if mode.is_bulk() {
        let mut file = File::create(bench.file())?;
        for _ in 0..options.file_size {
            file.write_all(&[0; 1 << 20])?;
        }
    }
    let (servers, skipped) = take_part(options, mode, &bench);
    let mut rounds: Vec<Rounds> = servers
        .iter()
        .map(|server| Rounds {
            name: server.name.into(),
            ours: server.is_ours(),
            reports: Vec::new(),
            counts: None,
            failure: None,
        })
        .collect();
    for round in 0..options.rounds {
        let mut order: Vec<usize> = (0..servers.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            progress(format_args!(
                "{}: round {} of {}, {}",
                mode.name,
                round + 1,
                options.rounds,
                servers[number].name
            ));
            let entry = &mut rounds[number];
            match quiet_measure(options, mode, &bench, &servers[number]) {
                Ok(report) => entry.reports.push(Some(report)),
                Err(error) => {
                    entry.reports.push(None);
                    entry.failure = Some(error.to_string());
                }
            }
        }
    }
    if options.counts && !mode.load.is_empty() && !mode.is_bulk() {
        for (server, entry) in servers.iter().zip(&mut rounds) {
            match bench.count(mode, server) {
                Ok(counts) => entry.counts = Some(counts),
                Err(error) => eprintln!("\nwarning: NOT COUNTED: {}: {error}", server.name),
            }
        }
    }
    progress(format_args!(""));
    Ok(Results {
        mode: mode.name.into(),
        pinned: cpus.is_some(),
        rounds: options.rounds,
        seconds: options.seconds,
        servers: rounds,
        skipped,
    })
}

/// Returns the available servers, and the names of those that are not available.
fn take_part(options: &Options, mode: &Mode, bench: &Bench) -> (Vec<Server>, Vec<String>) {
    let mut servers = (mode.servers)();
    let mut reference = servers.first().map_or("", |server| server.name);
    if options.earlier.is_some() {
        (servers, reference) = (servers::with_earlier(servers), "");
    }
    let wanted = |server: &Server| {
        options.only.is_empty()
            || server.name == reference
            || options
                .only
                .iter()
                .any(|pattern| matches(pattern, server.name.trim_end_matches(servers::EARLIER)))
    };
    servers.retain(wanted);
    let (there, missing): (Vec<_>, Vec<_>) =
        servers.into_iter().partition(|server| bench.program(server).is_some());
    let missing: Vec<String> = missing.iter().map(|server| server.name.to_owned()).collect();
    if !missing.is_empty() {
        eprintln!("warning: {}: SKIPPED, not installed or not built: {}", mode.name, missing.join(", "));
    }
    (there, missing)
}

/// Shows the progress in one line of the terminal, which the next call overwrites.
fn progress(line: std::fmt::Arguments<'_>) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{line}");
    }
}

/// Repeats a measurement while other processes use the machine, and returns the quietest.
fn quiet_measure(
    options: &Options,
    mode: &Mode,
    bench: &Bench,
    server: &Server,
) -> std::io::Result<Report> {
    let mut best = bench.measure(mode, server)?;
    for _ in 0..options.retries {
        if is_quiet(&best) {
            break;
        }
        let again = bench.measure(mode, server)?;
        if again.other_cores < best.other_cores {
            best = again;
        }
    }
    Ok(best)
}

/// Compares a name with a pattern that may start and end with `*`.
fn matches(pattern: &str, name: &str) -> bool {
    let part = pattern.trim_matches('*');
    match (pattern.starts_with('*'), pattern.ends_with('*')) {
        (true, true) => name.contains(part),
        (true, false) => name.ends_with(part),
        (false, true) => name.starts_with(part),
        (false, false) => name == part,
    }
}

/// Returns the first two CPUs that this process may use.
fn two_cpus() -> Option<(usize, usize)> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let mut cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    Some((cpus.next()?, cpus.next()?))
}
