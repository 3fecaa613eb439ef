//! The promise: a scenario has the same consequences in every run. Recordings are compared with the
//! files in `golden`, in the order of the kernel and in that of the wire. To write the files anew
//! after an intended change:
//!
//! ```text
//! SOCKLENS_RECORD=1 cargo test -p socklens --test golden
//! ```
#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Scenarios whose packets do not depend on a timer of the kernel, nor on the size of its buffers.
const NAMES: [&str; 24] = [
    "hello",
    "half_close",
    "time_wait",
    "backlog",
    "reset",
    "dead_peer",
    "delayed_ack",
    "simultaneous_close",
    "simultaneous_open",
    "handshake",
    "refused",
    "states_wire",
    "framing",
    "readiness",
    "timeouts",
    "connect_timeout",
    "nagle",
    "reuse_address",
    "linger_reset",
    "udp_refused",
    "udp_truncation",
    "unix_path",
    "mapped",
    "shared_socket",
];

/// Under load a packet can arrive in the middle of a look at the kernel. A recording that is wrong is
/// wrong every time.
const ATTEMPTS: usize = 6;
/// When a file is written anew it is the most frequent of so many recordings.
const RECORDINGS: usize = 9;

/// Value of a text key in a line of JSON.
fn text<'a>(line: &'a str, key: &str) -> &'a str {
    let start = format!("\"{key}\":\"");
    line.split_once(&start).map_or("", |(_, rest)| rest.split('"').next().unwrap())
}

/// Value of a key that is not a text.
fn plain<'a>(line: &'a str, key: &str) -> &'a str {
    let start = format!("\"{key}\":");
    line.split_once(&start).map_or("", |(_, rest)| rest.split([',', '}']).next().unwrap())
}

/// What a recording says in every run: without times, ports, cookies, and what the kernel has sent
/// again. The rows of each socket are in the order of the kernel, and the packets in that of the wire. A
/// listener is there once: whether a client waits in its queue depends on how fast a call of
/// accept is that blocks already.
fn normalised(jsonl: &str) -> String {
    let mut names = BTreeMap::new();
    for line in jsonl.lines().filter(|line| text(line, "k") == "name") {
        names.entry(text(line, "ck")).or_insert_with(|| text(line, "name").to_owned());
    }
    let (mut kernel, mut wire) = (BTreeMap::<String, String>::new(), String::new());
    let (mut last, mut packets, mut seen) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for line in jsonl.lines() {
        let number = names.len();
        let mut name = || {
            let host = text(line, "host");
            names.entry(text(line, "ck")).or_insert_with(|| format!("{host} {number}")).clone()
        };
        match text(line, "k") {
            "kern" => {
                let name = name();
                let mut row = text(line, "st").to_owned();
                for (key, short) in [("rq", "recvq"), ("wq", "sendq"), ("drops", "drops")] {
                    if !["", "0", "null"].contains(&plain(line, key)) {
                        write!(row, " {short} {}", plain(line, key)).unwrap();
                    }
                }
                if text(line, "timer") != "off" {
                    write!(row, " timer {}", text(line, "timer")).unwrap();
                }
                if text(line, "st") == "LISTEN" {
                    row = format!("LISTEN backlog {}", plain(line, "backlog"));
                }
                if last.insert(name.clone(), row.clone()) != Some(row.clone()) {
                    writeln!(kernel.entry(name).or_default(), "  {row}").unwrap();
                }
            }
            "gone" => writeln!(kernel.entry(name()).or_default(), "  gone").unwrap(),
            "pkt" => {
                let keys = ["flags", "from", "proto"].map(|key| text(line, key));
                let [seq, ack, len] = ["seq", "ack", "len"].map(|key| plain(line, key));
                let packet = format!("{} {} seq {seq} ack {ack} len {len}", keys[1], keys[0]);
                // What takes a number of the sequence is sent again, perhaps with another ACK.
                let takes_space = len != "0" || keys[0].contains("SYN") || keys[0].contains("FIN");
                let of_ack = if takes_space { "" } else { ack };
                let is_first = seen.insert((text(line, "src"), keys, seq, of_ack, len));
                // Datagrams have no numbers.
                if is_first || seq.is_empty() || seq == "null" {
                    writeln!(wire, "  {packet} {}", text(line, "fate")).unwrap();
                    packets.insert(plain(line, "id"), packet);
                }
            }
            "fate" => {
                if let Some(packet) = packets.get(plain(line, "id")) {
                    writeln!(wire, "  {packet} {}", text(line, "fate")).unwrap();
                }
            }
            _ => {}
        }
    }
    let sockets: String = kernel.iter().map(|(name, rows)| format!("{name}:\n{rows}")).collect();
    format!("{sockets}wire:\n{wire}")
}

struct Recorded {
    status: Option<i32>,
    stdout: String,
    jsonl: String,
}

fn record(name: &str, folder: &Path) -> Recorded {
    let file = folder.join(format!("{name}.{:?}.jsonl", thread::current().id()));
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_socklens"), "run", name, "--quiet", "--jsonl"]).arg(&file);
    let output = command.output().unwrap();
    Recorded {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        jsonl: fs::read_to_string(&file).unwrap_or_default(),
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"))
}

/// Whether this system has a wire. Otherwise the test does not run, and says it.
fn has_wire() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let recorded = record("hello", folder.path());
    if recorded.status == Some(77) {
        assert!(std::env::var_os("SOCK_REQUIRE_LENS").is_none(), "{}", recorded.stdout);
        eprintln!("NOT RUN: {}", recorded.stdout);
        return false;
    }
    true
}

/// The first lines that differ.
fn difference(expected: &str, found: &str) -> String {
    let at = expected.lines().zip(found.lines()).take_while(|(expected, found)| expected == found).count();
    let lines = |text: &str| text.lines().skip(at.saturating_sub(2)).take(6).collect::<Vec<_>>().join("\n");
    format!("line {}, expected:\n{}\nfound:\n{}", at + 1, lines(expected), lines(found))
}

/// Compares a recording with its file, and returns the last difference if none of the attempts is
/// equal.
fn compare(name: &str, folder: &Path) -> Result<(), String> {
    let expected = fs::read_to_string(golden(name)).map_err(|error| format!("{name}: {error}"))?;
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let recorded = record(name, folder);
        let found = normalised(&recorded.jsonl);
        if recorded.status == Some(0) && found == expected {
            return Ok(());
        }
        last = format!("{name}: {}\n{}", recorded.stdout, difference(&expected, &found));
    }
    Err(last)
}

/// A file without a name would not be compared.
#[test]
fn each_golden_file_has_a_scenario_and_each_scenario_a_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files: BTreeSet<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: BTreeSet<_> = NAMES.iter().map(|name| format!("{name}.txt")).collect();
    assert_eq!(files, expected);
}

fn compare_all(at_once: usize) {
    let folder = tempfile::tempdir().unwrap();
    for names in NAMES.chunks(at_once) {
        thread::scope(|scope| {
            for name in names {
                scope.spawn(|| {
                    compare(name, folder.path()).unwrap_or_else(|difference| panic!("{difference}"))
                });
            }
        });
    }
}

#[test]
fn recordings_are_those_of_the_golden_files() {
    if !has_wire() {
        return;
    }
    if std::env::var_os("SOCKLENS_RECORD").is_some() {
        let folder = tempfile::tempdir().unwrap();
        for name in NAMES {
            let mut counts = BTreeMap::new();
            for _ in 0..RECORDINGS {
                let recorded = record(name, folder.path());
                assert_eq!(recorded.status, Some(0), "{}", recorded.stdout);
                *counts.entry(normalised(&recorded.jsonl)).or_insert(0) += 1;
            }
            let (most, count) = counts.iter().max_by_key(|(_, count)| **count).unwrap();
            println!("{name}: {count} of {RECORDINGS} recordings are alike");
            fs::write(golden(name), most).unwrap();
        }
        return;
    }
    compare_all(1);
    compare_all(8);
}

/// Twice as many threads as processors compute while the scenarios run.
#[test]
fn recordings_are_those_of_the_golden_files_under_load() {
    if !has_wire() || std::env::var_os("SOCKLENS_RECORD").is_some() {
        return;
    }
    let is_over = AtomicBool::new(false);
    let threads = 2 * thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _end = End(&is_over);
        compare_all(4);
    });
}

/// Every kind of change in a recording is a difference, and what differs between runs is none.
#[test]
fn a_change_in_a_recording_is_found() {
    let line = |fields: &str| format!("{{{fields}}}\n");
    let kernel = |cookie: &str, state: &str, time: &str| {
        line(&format!(
            "\"k\":\"kern\",\"t\":{time},\"host\":\"A\",\"ck\":\"{cookie}\",\"st\":\"{state}\",\"rq\":0,\"wq\":1,\"timer\":\"on\""
        ))
    };
    let packet = |id: &str, from: &str, seq: &str, fate: &str| {
        line(&format!(
            "\"k\":\"pkt\",\"id\":{id},\"from\":\"{from}\",\"fate\":\"{fate}\",\"flags\":\"SYN\",\"seq\":{seq},\"ack\":0,\"len\":0,\"src\":\"x\""
        ))
    };
    let name = line("\"k\":\"name\",\"ck\":\"7\",\"name\":\"A1\"");
    let first = [
        kernel("7", "SYN-SENT", "0.1"),
        packet("1", "A", "0", "held"),
        kernel("7", "ESTABLISHED", "0.2"),
        name.clone(),
    ];
    let whole = normalised(&first.concat());
    assert_eq!(
        whole,
        "A1:\n  SYN-SENT sendq 1 timer on\n  ESTABLISHED sendq 1 timer on\nwire:\n  A SYN seq 0 ack 0 len 0 held\n"
    );
    let other_run = [
        kernel("7", "SYN-SENT", "9.5"),
        packet("5", "A", "0", "held"),
        packet("6", "A", "0", "held"),
        kernel("7", "ESTABLISHED", "9.9"),
        name.clone(),
    ];
    assert_eq!(normalised(&other_run.concat()), whole, "times, and a packet that was sent again");
    for changed in [
        [first[2].clone(), first[1].clone(), first[0].clone(), name.clone()],
        [first[0].clone(), packet("1", "B", "0", "held"), first[2].clone(), name.clone()],
        [first[0].clone(), packet("1", "A", "1", "held"), first[2].clone(), name.clone()],
        [first[0].clone(), packet("1", "A", "0", "dropped"), first[2].clone(), name.clone()],
        [first[0].clone(), first[1].clone(), kernel("8", "ESTABLISHED", "0.2"), name.clone()],
        [first[0].clone(), first[1].clone(), String::new(), name],
    ] {
        assert_ne!(normalised(&changed.concat()), whole, "{changed:?}");
    }
}
