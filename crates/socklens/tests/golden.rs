//! The promise: a scenario has the same consequences in every run. Recordings are compared with the
//! files in `golden`, in the order of the kernel and in that of the wire. The output of the lessons at
//! the begin of the course is compared as a whole, and with it the order between kernel and wire. To
//! write the files anew after an intended change:
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

/// The beginning of the course, whose whole output is compared.
const WITH_TEXT: [&str; 12] = [
    "hello",
    "blocked",
    "half_close",
    "time_wait",
    "backlog",
    "lost_segment",
    "slow_reader",
    "reset",
    "dead_peer",
    "delayed_ack",
    "simultaneous_close",
    "simultaneous_open",
];

/// A line of an output that is not compared, with all lines after it: poll returns at the first packet,
/// and recv takes what has arrived until then.
const UNTIL: (&str, &str) = ("slow_reader", " 22  B1.poll(");

/// Scenarios that differ between runs, and why. Their expectations are the same in every run.
const VARIABLE: [(&str, &str); 4] = [
    ("slow_reader", "how much the kernel sends after the window opens depends on when the reader reads"),
    ("partial_send", "how much fits in the buffers depends on when the kernel probes a window of zero"),
    (
        "states_loopback",
        "its packets do not pass the wire, so short states are seen if the kernel is read then",
    ),
    ("multicast", "the kernel repeats the report of a member at a random time"),
];

/// Scenarios whose packets do not depend on a timer of the kernel, nor on the size of its buffers.
const NAMES: [&str; 35] = [
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
    "blocked",
    "lost_segment",
    "syn_recv",
    "orphan",
    "udp_loss",
    "unix_stream",
    "unix_datagram",
    "unix_descriptors",
    "reuse_port",
    "inherited",
    "emfile",
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
/// accept is that blocks already. For the same reason a row with received data is left out if a call
/// of an earlier line waits for them.
fn normalised(jsonl: &str) -> String {
    let mut names = BTreeMap::new();
    for line in jsonl.lines().filter(|line| text(line, "k") == "name") {
        names.entry(text(line, "ck")).or_insert_with(|| text(line, "name").to_owned());
    }
    let (mut kernel, mut wire) = (BTreeMap::<String, String>::new(), String::new());
    let (mut last, mut packets, mut seen) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut of_line = "";
    // Calls that have not returned, with their sockets and lines.
    let mut open = BTreeMap::new();
    for line in jsonl.lines() {
        let number = names.len();
        let mut name = || {
            let host = text(line, "host");
            names.entry(text(line, "ck")).or_insert_with(|| format!("{host} {number}")).clone()
        };
        match text(line, "k") {
            "line" => of_line = plain(line, "line"),
            "call" if text(line, "fn").starts_with("recv") => {
                open.insert(plain(line, "id"), (text(line, "sock"), of_line));
            }
            "ret" => {
                open.remove(plain(line, "id"));
            }
            "kern" => {
                let name = name();
                let waits = |(sock, begun): &(&str, &str)| *sock == name && *begun != of_line;
                if !["", "0", "null"].contains(&plain(line, "rq")) && open.values().any(waits) {
                    continue;
                }
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

/// What a terminal shows in every run: without times, ports and descriptors, and without the queue of
/// a listener. Of rows of a socket with nothing between them, what has changed in the end is left. What
/// a call of an earlier line waits for is not in the queue of its socket, as in a recording.
fn normalised_text(output: &str) -> String {
    const ROW: &str = "       kernel  ";
    const NAME: usize = 19;
    let mut text = String::new();
    let mut last = BTreeMap::<String, String>::new();
    let mut waiting = BTreeSet::new();
    let mut pending: Option<(String, String, String)> = None;
    let mut put = |pending: &mut Option<(String, String, String)>, text: &mut String| {
        let Some((name, from, row)) = pending.take() else { return };
        if last.get(&name) != Some(&row) {
            writeln!(text, "{ROW}{name}{from}{row}").unwrap();
        }
        last.insert(name, row);
    };
    for line in output.lines() {
        let Some((name, row)) = line.strip_prefix(ROW).and_then(|row| row.split_at_checked(NAME)) else {
            put(&mut pending, &mut text);
            if let Some((object, _)) = line.split_once(".recv").filter(|_| line.ends_with(" blocks")) {
                waiting.insert(object.rsplit(' ').next().unwrap());
            } else if let Some((_, object)) = line.split_once("  join ") {
                waiting.remove(object.split(' ').next().unwrap());
            }
            text.push_str(&without_numbers(line));
            text.push('\n');
            continue;
        };
        if row.starts_with("LISTEN ") && !row.starts_with("LISTEN -> ") {
            continue;
        }
        if pending.as_ref().is_some_and(|(other, _, _)| other != name) {
            put(&mut pending, &mut text);
        }
        let (from, mut row) = match row.split_once(" -> ") {
            Some((from, row)) => (format!("{from} -> "), row.to_owned()),
            None => (String::new(), row.to_owned()),
        };
        if let Some((state, rest)) = row.split_once("recvq ").filter(|_| waiting.contains(name.trim_end()))
        {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            row = format!("{state}recvq 0{rest}");
        }
        let from = pending.take().map(|(_, from, _)| from).filter(|from| !from.is_empty()).unwrap_or(from);
        pending = Some((name.to_owned(), from, row));
    }
    put(&mut pending, &mut text);
    text
}

/// A line without the numbers of descriptors and of ports that the kernel selects, and without the
/// duration in the last line.
fn without_numbers(line: &str) -> String {
    let mut line = line.to_owned();
    for (before, shown) in
        [("fd ", "N"), (", in ", "TIME"), ("10.0.0.1\", ", "PORT"), ("10.0.0.2\", ", "PORT")]
    {
        let mut from = 0;
        while let Some(found) = line[from..].find(before) {
            from += found + before.len();
            let digits = line[from..].find(|c: char| !c.is_ascii_digit() && c != '.');
            let end = digits.map_or(line.len(), |length| from + length);
            let is_selected =
                shown != "PORT" || line[from..end].parse().is_ok_and(|port: u16| port >= 32_768);
            if end > from && is_selected {
                line.replace_range(from..end, shown);
            }
        }
    }
    line
}

struct Recorded {
    status: Option<i32>,
    stdout: String,
    jsonl: String,
}

fn record(name: &str, folder: &Path) -> Recorded {
    let file = folder.join(format!("{name}.{:?}.jsonl", thread::current().id()));
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_socklens"), "run", name, "--jsonl"]).arg(&file);
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

fn golden_text(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text").join(format!("{name}.txt"))
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

/// Compares what is made of a run with a file, and returns the last difference if none of the attempts
/// is equal.
fn compare(
    name: &str,
    folder: &Path,
    file: &Path,
    made: impl Fn(&Recorded) -> String,
) -> Result<(), String> {
    let expected = fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let recorded = record(name, folder);
        let found = made(&recorded);
        if recorded.status == Some(0) && found == expected {
            return Ok(());
        }
        last = format!("{name}: {}\n{}", recorded.stdout, difference(&expected, &found));
    }
    Err(last)
}

/// Writes what is made of most runs into a file.
fn write_anew(name: &str, folder: &Path, file: &Path, made: impl Fn(&Recorded) -> String) {
    let mut counts = BTreeMap::new();
    for _ in 0..RECORDINGS {
        let recorded = record(name, folder);
        assert_eq!(recorded.status, Some(0), "{}", recorded.stdout);
        *counts.entry(made(&recorded)).or_insert(0) += 1;
    }
    let (most, count) = counts.iter().max_by_key(|(_, count)| **count).unwrap();
    println!("{name}: {count} of {RECORDINGS} are alike");
    fs::write(file, most).unwrap();
}

/// A file without a name would not be compared.
#[test]
fn each_golden_file_has_a_scenario_and_each_scenario_a_file_or_a_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (folder, names) in [(folder.clone(), &NAMES[..]), (folder.join("text"), &WITH_TEXT[..])] {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files: BTreeSet<_> = files.filter(|path| path.is_file()).collect();
        let files: BTreeSet<_> = files.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
        assert_eq!(files, names.iter().copied().collect());
    }
    let lessons: BTreeSet<_> = socklens::BUILTIN.iter().map(|builtin| builtin.name).collect();
    let known = NAMES.iter().chain(VARIABLE.iter().map(|(name, _)| name)).copied();
    assert_eq!(known.clone().count(), lessons.len());
    assert_eq!(known.collect::<BTreeSet<_>>(), lessons);
    assert_eq!(
        socklens::BUILTIN[..WITH_TEXT.len()].iter().map(|builtin| builtin.name).collect::<Vec<_>>(),
        WITH_TEXT
    );
}

fn compare_all(at_once: usize) {
    let folder = tempfile::tempdir().unwrap();
    for names in NAMES.chunks(at_once) {
        thread::scope(|scope| {
            for name in names {
                scope.spawn(|| {
                    compare(name, folder.path(), &golden(name), |recorded| normalised(&recorded.jsonl))
                        .unwrap_or_else(|difference| panic!("{difference}"))
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
            write_anew(name, folder.path(), &golden(name), |recorded| normalised(&recorded.jsonl));
        }
        return;
    }
    compare_all(1);
    compare_all(8);
}

/// With the order of the kernel and the wire between each other, which the other files do not have.
#[test]
fn the_output_of_the_first_lessons_is_that_of_the_golden_files() {
    if !has_wire() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in WITH_TEXT {
        let made = |recorded: &Recorded| {
            let text = normalised_text(&recorded.stdout);
            match text.split_once(UNTIL.1).filter(|_| name == UNTIL.0) {
                Some((before, _)) => before.to_owned(),
                None => text,
            }
        };
        if std::env::var_os("SOCKLENS_RECORD").is_some() {
            write_anew(name, folder.path(), &golden_text(name), made);
        } else {
            compare(name, folder.path(), &golden_text(name), made)
                .unwrap_or_else(|difference| panic!("{difference}"));
        }
    }
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

/// Every kind of change in the output is a difference, and what differs between runs is none.
#[test]
fn a_change_in_the_output_is_found() {
    let kernel = |name: &str, row: &str| format!("       kernel  {name:<18} {row}");
    let lines = |lines: &[&str]| normalised_text(&lines.join("\n"));
    let (syn, listen) =
        (kernel("A1", "new -> SYN-SENT  recvq 0 sendq 1"), kernel("L", "LISTEN  waiting 1 of 5"));
    let (begin, wire) =
        (kernel("L", "new -> LISTEN  waiting 0 of 5"), "       wire    A -> B  SYN  seq 0  passed");
    let up = kernel("A1", "SYN-SENT -> ESTABLISHED  recvq 0 sendq 0");
    let call = "  7  B1 = L.accept()    = fd 13";
    let first = [&*begin, &*syn, wire, &*up, call, "hello: 5 passed, 0 failed, in 0.16 s"];
    let whole = lines(&first);
    assert_eq!(whole.lines().count(), 6, "{whole}");
    assert!(whole.contains("= fd N\n") && whole.ends_with("failed, in TIME s\n"), "{whole}");
    let other = [
        &*begin,
        &*syn,
        wire,
        &*listen,
        &*up,
        "  7  B1 = L.accept()    = fd 9",
        "hello: 5 passed, 0 failed, in 2.10 s",
    ];
    assert_eq!(lines(&other), whole, "numbers, and the queue of a listener");
    let (data, taken) = (
        kernel("A1", "SYN-SENT -> ESTABLISHED  recvq 7 sendq 0"),
        kernel("A1", "ESTABLISHED  recvq 0 sendq 0"),
    );
    let other = [&*begin, &*syn, wire, &*data, &*taken, call, first[5]];
    assert_eq!(lines(&other), whole, "a row between two others");
    let open = "  6  A1.recv(10) &      blocks";
    let waits = |row: &str| lines(&[open, wire, &up, row, wire, "  9  join A1   = b\"x\"", &data]);
    assert_eq!(waits(&taken), waits(&kernel("A1", "ESTABLISHED  recvq 7 sendq 0")), "a call that waits");
    assert!(waits(&taken).ends_with("recvq 7 sendq 0\n"), "{}", waits(&taken));
    let port = |port: &str| lines(&[&format!("  8  A1.getsockname() = (\"10.0.0.1\", {port})")]);
    assert_eq!(port("40123"), port("55000"));
    assert_ne!(port("80"), port("55000"));
    for changed in [
        vec![&*begin, &*syn, &*up, wire, call, first[5]],
        vec![&*begin, wire, &*syn, &*up, call, first[5]],
        vec![&*begin, &*syn, wire, &*data, call, first[5]],
        vec![&*begin, &*syn, wire, call, &*up, first[5]],
        vec![&*begin, &*syn, wire, &*up, "  7  B1 = L.accept()    FAILED", first[5]],
        vec![&*syn, wire, &*up, call, first[5]],
        vec![&*begin, &*syn, wire, &*up, call, "hello: 4 passed, 1 failed, in 0.16 s"],
    ] {
        assert_ne!(lines(&changed), whole, "{changed:?}");
    }
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
