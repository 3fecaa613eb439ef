//! The command line.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use crate::builtin::{BUILTIN, load};
use crate::export::{self, Language};
use crate::hint;
use crate::lab::{Lab, Tier};
use crate::page;
use crate::record::{Head, write_pcapng};
use crate::scenario::closest::suggestion;
use crate::scenario::{Options, Report, Scenario, run};
use crate::serve;
use crate::watch;

const HELP: &str = "\
socklens: real socket calls, the kernel's view of the sockets, and the packets between them

usage: socklens [serve [SCENARIO.scn] [OPTIONS]]
       socklens serve [--a COMMAND] [--b COMMAND] [OPTIONS]
       socklens run SCENARIO... [OPTIONS]
       socklens watch [--a COMMAND] [--b COMMAND] [OPTIONS]
       socklens export SCENARIO|RECORDING.jsonl --to LANGUAGE [--tier TIER]
       socklens list
       socklens show NAME
       socklens help
       socklens --version

serve  opens lessons, a scenario of yours, or programs in a browser. It prints an address of this
       machine, which has a secret token
run    runs scenarios: files, or names of lessons, which are built-in scenarios
watch  runs programs in any language on the hosts A (10.0.0.1) and B (10.0.0.2), and shows their
       socket calls. A starts when B listens, and B ends after A. When socklens ends, the programs
       are killed
export runs a scenario, or reads a recording of one, and prints its calls as a program. A recording
       of watch cannot be exported
list   lists the lessons in the order of a course, and marks those that do not run on loopback
show   prints a lesson, as a start for your own scenario

of run and watch:
  --tier TIER         how the hosts are made: veth, tun or loopback. Without it, the first that this
                      system permits. Programs run on loopback only with --tier loopback
  --quiet, -q         prints failures and a summary only. watch: how each program has ended
  --jsonl FILE        records everything as JSON lines. run: one scenario only, as the next two
  --pcapng FILE       records the packets, for Wireshark
  --html FILE         writes a page that plays the recording, without a server
of watch and serve:
  --a COMMAND         the program of A. The command is split into words as sh(1) does it, and no
  --b COMMAND         shell runs. With one: --a \"sh -c 'a | b'\"
  --hold CALLS        stops these calls at their entry: accept,B.send, or all. Without it, watch
                      stops none and serve stops all
  --hold-packets      the wire holds packets from the beginning. It holds no calls
  --stay              B goes on after the end of A
  --all               shows Unix and netlink sockets too
  --max-recording N   ends what runs when the recording has N bytes. The default is 32M
  --max-memory N      ends the programs when they have N bytes of memory together. The default is 2G
  --max-descriptors N lets a process open at most N descriptors. The default is 4096
of watch only:
  --stdin HOST        the program of this host, a or b, reads the standard input
of serve only:
  --port PORT         the port of the page. The default is any that is free
  --tier TIER         as of run
of export only:
  --to LANGUAGE       python, rust, c, or strace
  --tier TIER         as of run

With --hold or --hold-packets the standard input of watch has commands, one on a line: step (or an
empty line), run, pause, hold, pass, deliver [N], drop [N], duplicate [N], quit.

exit status of run: 0 every expectation and every result is true, 1 one is not, 2 wrong usage or a
mistake in a scenario, 77 a scenario could not run on this system (the output has the reason)
exit status of watch: 0 each program has ended with 0 or was ended by socklens, 1 one has failed or
could not be started, 2 wrong usage, 77 the hosts could not be made on this system
";

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_RUN: u8 = 77;

#[derive(Debug, Default)]
struct Arguments {
    scenarios: Vec<String>,
    tier: Option<Tier>,
    is_quiet: bool,
    jsonl: Option<String>,
    pcapng: Option<String>,
    html: Option<String>,
}

/// Runs the program with these arguments and returns its exit status.
///
/// Call it before the process starts a second thread: see [`Lab::new`].
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let result = texts(arguments).and_then(|arguments| command(&arguments));
    match result {
        Ok(status) => ExitCode::from(status),
        Err(text) => {
            // `eprintln!` would panic if the reader of standard error has gone.
            let _ = writeln!(io::stderr(), "socklens: {text}");
            ExitCode::from(USAGE)
        }
    }
}

fn texts(arguments: Vec<OsString>) -> Result<Vec<String>, String> {
    let text = |argument: OsString| {
        argument.into_string().map_err(|argument| format!("the argument {argument:?} is not UTF-8"))
    };
    arguments.into_iter().map(text).collect()
}

fn command(arguments: &[String]) -> Result<u8, String> {
    let (name, rest) = match arguments {
        [] => (None, arguments),
        [name, rest @ ..] => (Some(name.as_str()), rest),
    };
    let is_internal = matches!(name, Some(serve::LESSON | serve::WATCHED));
    if !is_internal && rest.iter().any(|word| word == "--help" || word == "-h") {
        return print(HELP).map(|()| 0);
    }
    match name {
        Some("run") => parse(rest).and_then(|arguments| run_all(&arguments)),
        Some("watch") => watch::watch(rest),
        Some("export") => export_one(rest),
        Some("list") => list(),
        Some("show") => show(rest.first().map(String::as_str)),
        None => serve::serve(&[]),
        Some("serve") => serve::serve(rest),
        // How `serve` starts the process of a lesson.
        Some(serve::LESSON) => serve::lesson(rest),
        Some(serve::WATCHED) => serve::watched(rest),
        Some("help" | "--help" | "-h") => print(HELP).map(|()| 0),
        Some("--version" | "-V") => {
            print(concat!("socklens ", env!("CARGO_PKG_VERSION"), "\n")).map(|()| 0)
        }
        Some(other) => {
            let hint = suggestion(other, ["run", "watch", "export", "list", "show", "serve", "help"]);
            Err(format!("unknown command {other:?}{hint}; socklens help prints the usage"))
        }
    }
}

fn print(text: &str) -> Result<(), String> {
    // A reader such as head(1) may have enough.
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot write: {error}")),
        _ => Ok(()),
    }
}

/// Writes to the standard output until its reader has gone. A reader such as head(1) may have
/// enough, and the exit status is still that of the whole run.
struct Stdout {
    is_closed: bool,
}

impl Write for Stdout {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.is_closed {
            return Ok(data.len());
        }
        match io::stdout().write(data) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(data.len())
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match io::stdout().flush() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

fn list() -> Result<u8, String> {
    let mut text = String::new();
    for builtin in BUILTIN {
        let scenario = Scenario::parse(builtin.name, builtin.text).map_err(|error| error.to_string())?;
        let needs = if scenario.needs_wire() { " (not on loopback)" } else { "" };
        text += &format!("{:<22} {}{needs}\n", builtin.name, scenario.title());
    }
    print(&text).map(|()| 0)
}

fn show(name: Option<&str>) -> Result<u8, String> {
    let name = name.ok_or("show needs the name of a scenario; socklens list prints them")?;
    let found = BUILTIN.iter().find(|builtin| builtin.name == name);
    let builtin = found.ok_or_else(|| {
        let hint = suggestion(name, BUILTIN.iter().map(|builtin| builtin.name));
        format!("there is no built-in scenario {name:?}{hint}; socklens list prints them")
    })?;
    print(builtin.text).map(|()| 0)
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let mut parsed = Arguments::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--tier" => {
                let name = value()?;
                parsed.tier = Some(Tier::parse(&name).ok_or_else(|| not_a_tier(&name))?);
            }
            "--quiet" | "-q" => parsed.is_quiet = true,
            "--jsonl" => parsed.jsonl = Some(value()?),
            "--pcapng" => parsed.pcapng = Some(value()?),
            "--html" => parsed.html = Some(value()?),
            option if option.starts_with('-') => {
                let hint = suggestion(option, ["--tier", "--quiet", "--jsonl", "--pcapng", "--html"]);
                return Err(format!("unknown option {option}{hint}; socklens help prints the usage"));
            }
            scenario => parsed.scenarios.push(scenario.to_owned()),
        }
    }
    if parsed.scenarios.is_empty() {
        return Err("run needs a scenario: a file, or a name of socklens list".to_owned());
    }
    let records = [&parsed.jsonl, &parsed.pcapng, &parsed.html];
    if parsed.scenarios.len() > 1 && records.iter().any(|path| path.is_some()) {
        return Err("--jsonl, --pcapng and --html record one scenario".to_owned());
    }
    Ok(parsed)
}

/// Prints the calls of a recording, or of a scenario that is run for it, as a program.
fn export_one(arguments: &[String]) -> Result<u8, String> {
    let (mut source, mut language, mut tier) = (None, None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--to" => {
                let name = value()?;
                let names = Language::ALL.map(Language::name);
                let known = Language::parse(name);
                language = Some(known.ok_or_else(|| {
                    let hint = suggestion(name, names);
                    format!("{name:?} is not one of {}{hint}", names.join(", "))
                })?);
            }
            "--tier" => {
                let name = value()?;
                tier = Some(Tier::parse(name).ok_or_else(|| not_a_tier(name))?);
            }
            option if option.starts_with('-') => {
                let hint = suggestion(option, ["--to", "--tier"]);
                return Err(format!("unknown option {option}{hint}; socklens help prints the usage"));
            }
            name if source.is_none() => source = Some(name),
            _ => return Err("export takes one scenario or one recording".to_owned()),
        }
    }
    let source = source.ok_or("export needs a scenario, or a recording in a .jsonl file")?;
    let language = language.ok_or("export needs --to, with python, rust, c or strace")?;
    let recording = if source.ends_with(".jsonl") {
        std::fs::read_to_string(source).map_err(|error| format!("cannot read {source}: {error}"))?
    } else {
        let scenario = load(source)?;
        let begin = SystemTime::now();
        let not_run = |reason: String| {
            eprintln!("{}: NOT RUN: {reason}", scenario.name());
            Ok(NOT_RUN)
        };
        let lab = match Lab::new(tier) {
            Ok(lab) => lab,
            Err(error) => return not_run(error.to_string()),
        };
        let head = Head::new(scenario.name(), lab.tier().to_string(), begin);
        let report = run(&scenario, &lab, Options::default(), &mut io::sink())
            .map_err(|error| format!("cannot run {source}: {error}"))?;
        if let Some(reason) = report.not_run {
            return not_run(reason);
        }
        for failure in &report.failures {
            eprintln!("note: line {} of the scenario failed: {}", failure.line, failure.seen);
        }
        page::recording(&scenario, &head, &report.events)
    };
    print(&export::export(&recording, language)?).map(|()| 0)
}

fn not_a_tier(name: &str) -> String {
    format!("{name:?} is not veth, tun or loopback")
}

fn run_all(arguments: &Arguments) -> Result<u8, String> {
    let scenarios: Result<Vec<_>, _> = arguments.scenarios.iter().map(|name| load(name)).collect();
    let mut status = 0;
    for scenario in scenarios? {
        status = status.max(match run_one(&scenario, arguments)? {
            // A failure is worse than a scenario that could not run.
            FAILED => 100 + FAILED,
            other => other,
        });
    }
    Ok(if status == 100 + FAILED { FAILED } else { status })
}

fn run_one(scenario: &Scenario, arguments: &Arguments) -> Result<u8, String> {
    let mut stdout = Stdout { is_closed: false };
    let mut sink = io::sink();
    let output: &mut dyn Write = if arguments.is_quiet { &mut sink } else { &mut stdout };
    // A file that cannot be written is found before anything runs.
    for path in [&arguments.jsonl, &arguments.pcapng, &arguments.html].into_iter().flatten() {
        File::create(path).map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    let begin = SystemTime::now();
    // The library makes additional system calls for hints, and pcapng has packets only.
    if arguments.jsonl.is_some() || arguments.html.is_some() {
        hint::collect();
    }
    let lab = match Lab::new(arguments.tier) {
        Ok(lab) => lab,
        Err(error) => {
            print(&format!("{}: NOT RUN: {error}\n", scenario.name()))?;
            return Ok(NOT_RUN);
        }
    };
    let written = |result: io::Result<()>| result.map_err(|error| format!("cannot write: {error}"));
    let tier = lab.tier();
    let hosts = match tier {
        Tier::Loopback => {
            "hosts A 10.0.0.1 and B 10.0.0.2 (in fact addresses of the loopback network), no wire"
                .to_owned()
        }
        tier => format!("hosts A 10.0.0.1 and B 10.0.0.2, wire {tier}"),
    };
    written(writeln!(output, "{}, {hosts}", scenario.name()))?;
    for reason in lab.reasons() {
        written(writeln!(output, "note: {reason}"))?;
    }
    let report = run(scenario, &lab, Options::default(), output)
        .map_err(|error| format!("cannot write: {error}"))?;
    if let Some(reason) = &report.not_run {
        print(&format!("{}: NOT RUN: {reason}\n", scenario.name()))?;
        return Ok(NOT_RUN);
    }
    drop(lab);
    let head = Head::new(scenario.name(), tier.to_string(), begin);
    let recording = || page::recording(scenario, &head, &report.events);
    if let Some(path) = &arguments.jsonl {
        std::fs::write(path, recording()).map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    if let Some(path) = &arguments.pcapng {
        File::create(path)
            .and_then(|file| {
                let mut file = BufWriter::new(file);
                write_pcapng(&mut file, &head, &report.events)?;
                file.flush()
            })
            .map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    if let Some(path) = &arguments.html {
        page::replay(scenario.name(), &recording(), &export::all(&recording()))
            .and_then(|page| std::fs::write(path, page))
            .map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    summary(scenario, &report)
}

fn summary(scenario: &Scenario, report: &Report) -> Result<u8, String> {
    let mut text = String::new();
    for failure in &report.failures {
        text += &format!(
            "FAILED {} line {}: {}\n  seen: {}\n",
            scenario.name(),
            failure.line,
            failure.text,
            failure.seen
        );
    }
    if report.skipped > 0 {
        text += &format!("{} lines after it did not run\n", report.skipped);
    }
    if report.lost > 0 {
        text += &format!("the tool itself lost {} packets\n", report.lost);
    }
    text += &format!(
        "{}: {} passed, {} failed, in {:.2} s\n",
        scenario.name(),
        report.passed,
        report.failures.len(),
        report.took.as_secs_f64()
    );
    print(&text)?;
    Ok(if report.failures.is_empty() { 0 } else { FAILED })
}
