//! The promises of the program: every built-in scenario is true, a wrong expectation is found and
//! described, and a recording is causal and the same in every run.
#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

const NOT_RUN: i32 = 77;

struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn socklens(arguments: &[&str]) -> Ran {
    // A scenario has limits of its own; this one is for a program that hangs.
    let mut command = Command::new("timeout");
    command.arg("60").arg(env!("CARGO_BIN_EXE_socklens")).args(arguments);
    let Output { status, stdout, stderr } = command.output().unwrap();
    Ran {
        status: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// Whether this system has a wire. Otherwise the test does not run, and says it.
fn has_wire() -> bool {
    let ran = socklens(&["run", "hello", "--quiet"]);
    if ran.status == Some(NOT_RUN) {
        assert!(std::env::var_os("SOCK_REQUIRE_LENS").is_none(), "{}", ran.stdout);
        eprintln!("NOT RUN: {}", ran.stdout);
        return false;
    }
    true
}

fn builtin() -> Vec<String> {
    let list = socklens(&["list"]);
    list.stdout.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

fn run_file(folder: &Path, text: &str, options: &[&str]) -> Ran {
    let file = folder.join("test.scn");
    fs::write(&file, text).unwrap();
    socklens(&[&["run", file.to_str().unwrap()], options].concat())
}

/// Runs every scenario once, several at a time.
fn run_all(at_once: usize) {
    let names = builtin();
    assert!(names.len() >= 30, "{names:?}");
    for names in names.chunks(at_once) {
        thread::scope(|scope| {
            for name in names {
                scope.spawn(move || {
                    let text = socklens(&["show", name]).stdout;
                    // One that counts the held packets: the kernel sends them again while the machine is busy.
                    let ran = if text.contains("wire.held ==") {
                        let folder = tempfile::tempdir().unwrap();
                        run_file(folder.path(), &(without_retransmissions() + &text), &[])
                    } else {
                        socklens(&["run", name])
                    };
                    assert_eq!(ran.status, Some(0), "{name}:\n{}{}", ran.stdout, ran.stderr);
                });
            }
        });
    }
}

#[test]
fn every_scenario_is_true_alone_and_eight_at_once() {
    if has_wire() {
        run_all(1);
        run_all(8);
        run_all(8);
    }
}

/// Those that need a wire do not run, and the others are true.
#[test]
fn every_scenario_is_true_on_plain_loopback_or_needs_a_wire() {
    let mut not_run = 0;
    let list = socklens(&["list"]).stdout;
    for name in builtin() {
        let listed = list.lines().find(|line| line.split(' ').next() == Some(&name)).unwrap();
        let ran = socklens(&["run", &name, "--tier", "loopback"]);
        if ran.status == Some(NOT_RUN) {
            assert!(ran.stdout.contains("NOT RUN: it "), "{}", ran.stdout);
            assert!(listed.ends_with(" (not on loopback)"), "{listed}");
            not_run += 1;
        } else {
            assert!(!listed.ends_with(" (not on loopback)"), "{listed}");
            assert_eq!(ran.status, Some(0), "{name}:\n{}{}", ran.stdout, ran.stderr);
        }
    }
    assert!(not_run < 20, "{not_run} scenarios did not run");
}

#[test]
fn a_wrong_expectation_fails_with_its_line_and_what_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let text = "S = A.socket(AF_INET, SOCK_STREAM)\nexpect S.state == LISTEN\nexpect S.state == CLOSED\n";
    let ran = run_file(folder.path(), text, &["--quiet"]);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    let expected =
        "FAILED test.scn line 2: expect S.state == LISTEN\n  seen: S.state is CLOSED, after 1.0 s\n";
    assert!(ran.stdout.starts_with(expected), "{}", ran.stdout);
    assert!(ran.stdout.contains("1 passed, 1 failed"), "{}", ran.stdout);
}

#[test]
fn a_call_that_blocks_fails_after_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "S = A.socket(AF_INET, SOCK_DGRAM)\nS.bind((\"127.0.0.1\", 0))\nS.recv(1) within 0.3s\nS.close()";
    let ran = run_file(folder.path(), text, &["--quiet"]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.stdout.contains("line 3: S.recv(1) within 0.3s\n  seen: the call still blocks after 0.3 s")
    );
    assert!(ran.stdout.contains("1 lines after it did not run"), "{}", ran.stdout);
}

#[test]
fn a_wrong_result_of_a_call_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let text = "S = A.socket(AF_INET, SOCK_STREAM)\nS.recv(1) -> ECONNRESET";
    let ran = run_file(folder.path(), text, &["--quiet"]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.stdout.contains("seen: = -1 ENOTCONN"), "{}", ran.stdout);
}

#[test]
fn a_mistake_in_a_scenario_is_found_before_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run_file(folder.path(), "S = A.socket(AF_INET, SOCK_STREAM)\nS.lisen(1)", &[]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""));
    assert!(ran.stderr.contains("line 2: a socket has no function \"lisen\""), "{}", ran.stderr);
    assert_eq!(socklens(&["run", "no_such_scenario"]).status, Some(2));
    assert_eq!(socklens(&["run", "hello", "--colour"]).status, Some(2));
}

/// The line, a mark below the mistake, and what was perhaps meant.
#[test]
fn a_mistake_is_marked_in_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (line, problem, mark) in [
        (
            "S.lisen(1)",
            "a socket has no function \"lisen\"; did you mean listen. It has: accept, ",
            "  ^^^^^",
        ),
        (
            "S.bind((\"10.0.0.2\", 80)",
            "expected a comma or \")\" at the end of the line",
            "                       ^",
        ),
        ("S.recv(1) -> ECONRESET", "ECONRESET is neither a value nor an error", "             ^^^^^^^^^"),
        (
            "expect S.state == FIN_WAIT_1",
            "\"FIN_WAIT_1\" is not a state; did you mean FIN-WAIT-1.",
            "                  ^^^^^^^^^^",
        ),
        (
            "T = A.socket(AF_INET, SOCK_STREM)",
            "SOCK_STREM is neither a constant nor a socket; did you mean SOCK_STREAM",
            "                      ^^^^^^^^^^",
        ),
        (
            "S.shutdown(SHUT_RW)",
            "SHUT_RW is neither a constant nor a socket; did you mean SHUT_",
            "           ^^^^^^^",
        ),
    ] {
        let ran = run_file(folder.path(), &format!("S = A.socket()\n{line}\nS.close()"), &[]);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{line}");
        assert!(ran.stderr.contains(&format!("test.scn: line 2: {problem}")), "{}", ran.stderr);
        assert!(ran.stderr.ends_with(&format!("  2 | {line}\n    | {mark}\n")), "{}", ran.stderr);
    }
}

/// A call that still blocks at the end does not keep the folder of the lab.
#[test]
fn the_folder_of_a_lab_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.scn");
    fs::write(&file, "L = B.socket(AF_UNIX, SOCK_STREAM)\nL.bind(\"server\")\nL.listen(1)\nL.accept() &\nrun B \"sleep 5\" &").unwrap();
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_socklens"), "run"]).arg(&file).args(["--tier", "loopback"]);
    let output = command.env("TMPDIR", &temporary).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn calls_return_what_python_returns() {
    let folder = tempfile::tempdir().unwrap();
    let text = "L = B.socket()
L.bind((\"10.0.0.2\", 8080))
L.listen(1)
C = A.socket()
C.setblocking(False)
C.getblocking() -> False
C.gettimeout() -> 0.0
C.connect_ex((\"10.0.0.2\", 8080)) -> EINPROGRESS
C.poll(POLLOUT, 5) -> POLLOUT
C.getsockopt(SOL_SOCKET, SO_ERROR) -> 0
P = L.accept()
P.sendmsg([b\"head \", b\"body\"]) -> 9
C.poll(POLLIN, 5) -> POLLIN
C.recv(100) -> b\"head body\"
D = A.socket()
D.setblocking(False)
D.connect_ex((\"10.0.0.2\", 8081)) -> any
D.poll(POLLOUT, 5) -> any
D.getsockopt(SOL_SOCKET, SO_ERROR) -> ECONNREFUSED
";
    let ran = run_file(folder.path(), text, &["--quiet"]);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn a_packet_cannot_be_delivered_while_the_wire_passes_all() {
    if !has_wire() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let ran = run_file(folder.path(), "S = A.socket()\nwire deliver SYN", &["--quiet"]);
    assert_eq!(ran.status, Some(1), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("seen: the wire passes every packet; wire hold before it"),
        "{}",
        ran.stdout
    );
}

#[test]
fn what_is_no_scenario_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("binary.scn"), b"\x7fELF\xff").unwrap();
    fs::write(path("zeroes.scn"), [0; 10]).unwrap();
    fs::write(path("empty.scn"), "# Only a comment.\n\n").unwrap();
    fs::create_dir(path("folder.scn")).unwrap();
    let out = path("none/out");
    for (arguments, reason) in [
        (&["run", &path("binary.scn")][..], "it is not a text in UTF-8"),
        (&["run", &path("zeroes.scn")], "it is not a text, because it has zero bytes"),
        (&["run", &path("empty.scn")], "has no line that does something"),
        (&["run", &path("folder.scn")], "Is a directory"),
        (&["run", &path("missing.scn")], "No such file or directory"),
        (&["run", "/dev/zero"], "it has more than 1 MiB"),
        (&["run", "hell"], "; did you mean hello; socklens list prints"),
        (&["show", "resett"], "\"resett\"; did you mean reset; socklens list prints"),
        (&["rum"], "unknown command \"rum\"; did you mean run; socklens help prints"),
        (&["run", "--quit", "hello"], "unknown option --quit; did you mean --quiet"),
        (&["run", "hello", "--jsonl", &out], "cannot write "),
        (&["run", "hello", "--jsonl"], "--jsonl needs a value"),
        (&["run"], "run needs a scenario"),
    ] {
        let ran = socklens(arguments);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(reason) && ran.stderr.lines().count() < 3,
            "{arguments:?}: {}",
            ran.stderr
        );
    }
}

/// A scenario from another author must not move the cursor, or hide what it runs.
#[test]
fn what_a_terminal_obeys_is_refused_and_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    for (line, number) in [
        ("S = A.socket() # \u{1b}[2J", "U+001B"),
        ("S = A.socket() # \u{9b}2J", "U+009B"),
        ("S = A.socket(\u{202e})", "U+202E"),
        ("S\rrun A \"x\"", "U+000D"),
    ] {
        let ran = run_file(folder.path(), &format!("# Title.\n{line}\n"), &[]);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{line:?}: {}", ran.stderr);
        let expected = format!("line 2: the invisible character {number}");
        assert!(ran.stderr.contains(&expected), "{line:?}: {}", ran.stderr);
        let shown = ran.stderr.replace('\n', "");
        assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'), "{shown:?}");
    }
}

#[test]
fn a_byte_order_mark_and_carriage_returns_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let text = "\u{feff}# From Windows.\r\nS = A.socket()\r\nS.close()\r\n";
    let ran = run_file(folder.path(), text, &["--tier", "loopback"]);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn wrong_usage_has_its_status_without_a_reader_and_without_utf_8() {
    let wrong = std::ffi::OsStr::from_bytes(b"\xff.scn");
    for arguments in [&["run".as_ref(), wrong][..], &[wrong]] {
        let output = Command::new(env!("CARGO_BIN_EXE_socklens")).args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(stderr, "socklens: the argument \"\\xFF.scn\" is not UTF-8\n");
    }
    let (reader, writer) = UnixStream::pair().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_socklens"));
    let status = command.arg("rum").stderr(OwnedFd::from(writer)).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn help_of_each_command_prints_the_usage() {
    let usage = socklens(&["help"]);
    assert!(usage.stdout.contains("usage: socklens "), "{}", usage.stdout);
    for command in ["run", "watch", "serve", "export", "list", "show"] {
        for option in ["--help", "-h"] {
            let ran = socklens(&[command, option]);
            assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{command} {option}");
            assert_eq!(ran.stdout, usage.stdout, "{command} {option}");
        }
    }
}

/// `socklens run half_close | head -1`: the status is that of the scenario, and nothing is printed.
#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.scn");
    fs::write(&wrong, "S = A.socket()\nexpect S.state == LISTEN within 0.1s\n").unwrap();
    for (name, expected) in [("half_close", 0), (wrong.to_str().unwrap(), 1)] {
        let mut child = Command::new("timeout")
            .args(["60", env!("CARGO_BIN_EXE_socklens"), "run", name, "--tier", "loopback"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{name}");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Value of a text key in a line of JSON.
fn key<'a>(line: &'a str, key: &str) -> &'a str {
    let start = format!("\"{key}\":\"");
    line.split_once(&start).map_or("", |(_, rest)| rest.split('"').next().unwrap())
}

/// The kernel's and the wire's events, with a socket's place instead of its cookie and without
/// times and ports.
fn order_of(jsonl: &str) -> Vec<String> {
    let mut places = BTreeMap::new();
    let mut order = Vec::new();
    for line in jsonl.lines() {
        let next = places.len();
        let mut place = || *places.entry(key(line, "ck").to_owned()).or_insert(next);
        let number = |name: &str| {
            let start = format!("\"{name}\":");
            line.split_once(&start).map_or("", |(_, rest)| rest.split([',', '}']).next().unwrap())
        };
        order.push(match key(line, "k") {
            "kern" => format!(
                "{} socket {} {} {} {} {}",
                key(line, "host"),
                place(),
                key(line, "st"),
                number("rq"),
                number("wq"),
                key(line, "timer")
            ),
            "gone" => format!("{} socket {} gone", key(line, "host"), place()),
            "pkt" => format!(
                "{} {} {} {} {}",
                key(line, "from"),
                key(line, "flags"),
                number("seq"),
                number("ack"),
                key(line, "fate")
            ),
            _ => continue,
        });
    }
    order
}

/// Returns whether the kernel's timers took part: a packet was sent again, or a connected socket had the
/// same state twice.
fn had_a_timer(order: &[String]) -> bool {
    let mut packets = BTreeSet::new();
    let mut states = BTreeMap::new();
    order.iter().any(|event| match event.split_once(" socket ") {
        None => !packets.insert(event),
        Some((host, rest)) => {
            let (place, state) = rest.split_once(' ').unwrap();
            states.insert((host, place), state) == Some(state) && !state.starts_with("LISTEN")
        }
    })
}

/// Lines that keep the kernel from sending a packet again, which it does after 0.2 seconds. None on Linux
/// before 6.11.
fn without_retransmissions() -> String {
    const NAME: &str = "net.ipv4.tcp_rto_min_us";
    if !Path::new("/proc/sys").join(NAME.replace('.', "/")).exists() {
        return String::new();
    }
    ["A", "B"].map(|host| format!("sysctl {host} {NAME} 60000000\n")).concat()
}

/// On a busy machine timers send a SYN or an acknowledgement again. A run in which that happens is
/// another experiment, and is repeated.
#[test]
fn recordings_have_the_same_order_in_every_run() {
    if !has_wire() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("order.jsonl");
    for name in ["half_close", "reset", "simultaneous_close"] {
        let text = without_retransmissions() + &socklens(&["show", name]).stdout;
        let (mut first, mut same, mut runs) = (None, 0, 0);
        while same < 5 {
            let ran = run_file(folder.path(), &text, &["--quiet", "--jsonl", file.to_str().unwrap()]);
            assert_eq!(ran.status, Some(0), "{}", ran.stdout);
            let order = order_of(&fs::read_to_string(&file).unwrap());
            assert!(order.len() > 15, "{order:?}");
            runs += 1;
            if had_a_timer(&order) {
                assert!(runs < 30, "{name}: {} of {runs} runs with timers: {order:#?}", runs - same);
                continue;
            }
            assert_eq!(*first.get_or_insert(order.clone()), order, "{name}, run {runs}");
            same += 1;
        }
    }
}

#[test]
fn states_between_two_packets_are_recorded_without_holding_any() {
    if !has_wire() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("states.jsonl");
    socklens(&["run", "half_close", "--quiet", "--jsonl", file.to_str().unwrap()]);
    let recording = fs::read_to_string(&file).unwrap();
    assert!(recording.starts_with("{\"k\":\"meta\",\"v\":1,\"scenario\":\"half_close\",\"tier\":\""));
    for state in ["SYN-SENT", "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "LAST-ACK", "TIME-WAIT"]
    {
        assert!(recording.contains(&format!("\"st\":\"{state}\"")), "{state} is missing");
    }
}

/// 5 MB over the wire arrive unharmed, in frames of at most 1514 bytes, and the tool loses none.
#[test]
fn a_bulk_transfer_arrives_unharmed() {
    if !has_wire() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pcapng = folder.path().join("bulk.pcapng");
    let text = "L = B.socket(AF_INET, SOCK_STREAM)
L.bind((\"10.0.0.2\", 80))
L.listen(5)
A1 = A.socket(AF_INET, SOCK_STREAM)
A1.connect((\"10.0.0.2\", 80))
B1 = L.accept()
B1.recv(5000000, MSG_WAITALL) &
A1.sendall(b\"0123456789\" * 500000) within 30s
join B1 -> b\"0123456789\" * 500000 within 30s
";
    let ran = run_file(folder.path(), text, &["--pcapng", pcapng.to_str().unwrap()]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    assert!(!ran.stdout.contains("lost"), "{}", ran.stdout);
    assert!(ran.stdout.lines().count() < 120, "the output was not shortened");
    let file = fs::read(&pcapng).unwrap();
    let (mut rest, mut longest) = (&file[..], 0);
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(*rest[at..].first_chunk().unwrap());
        if word(0) == 6 {
            longest = longest.max(word(20));
        }
        rest = &rest[word(4) as usize..];
    }
    assert!((1400..=1500).contains(&longest), "the longest packet has {longest} bytes");
}

/// The programs of a scenario run on its hosts, and their sockets are shown.
#[test]
fn a_program_of_the_system_runs_on_a_host() {
    if !has_wire() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = "L = B.socket(AF_INET, SOCK_STREAM)
L.bind((\"10.0.0.2\", 80))
L.listen(5)
run A \"bash -c 'exec 3<>/dev/tcp/10.0.0.2/80; echo hello >&3; cat <&3; exit 3'\" &
B1 = L.accept()
B1.recv(100) -> b\"hello\\n\"
B1.sendall(b\"answer\")
B1.close()
join A -> 3
";
    let ran = run_file(folder.path(), text, &[]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    for part in ["(unnamed, A)       new -> SYN-SENT", "A printed: answer", "new -> SYN-RECV"] {
        assert!(ran.stdout.contains(part), "{part}:\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("(not accepted, A)"), "{}", ran.stdout);
}

/// The first row of an established connection has all values of TCP_INFO, the next ones have what has changed, and
/// the kernel reports the last ones.
#[test]
fn a_recording_has_tcp_info_also_of_sockets_that_have_died() {
    if !has_wire() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.jsonl");
    let ran = socklens(&["run", "half_close", "--quiet", "--jsonl", file.to_str().unwrap()]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    let recording = fs::read_to_string(file).unwrap();
    let name = recording.lines().find(|line| line.ends_with("\"name\":\"B1\"}")).unwrap();
    let cookie = name.split("\"ck\":").nth(1).unwrap().split(',').next().unwrap();
    let of_b1: Vec<_> =
        recording.lines().filter(|line| line.contains(&format!("\"ck\":{cookie}"))).collect();
    let has = |kind: &str, parts: &[&str]| {
        let kind = format!("\"k\":\"{kind}\"");
        of_b1.iter().any(|line| line.contains(&kind) && parts.iter().all(|part| line.contains(part)))
    };
    assert!(
        has("kern", &["\"was\":\"SYN-RECV\"", "\"snd_cwnd\":", "\"rto\":", "\"segs_in\":"]),
        "{of_b1:#?}"
    );
    assert!(has("kern", &["\"wq\":6", "\"bytes_sent\":6"]), "{of_b1:#?}");
    // Its FIN is acknowledged, which was not so in its last row.
    assert!(has("died", &["\"bytes_acked\":7", "\"unacked\":0"]), "{of_b1:#?}");
    let repeated = of_b1.iter().filter(|line| line.contains("\"advmss\":")).count();
    assert_eq!(repeated, 1, "a value that has not changed: {of_b1:#?}");
}

#[test]
fn the_version_is_printed() {
    for option in ["--version", "-V"] {
        let ran = socklens(&[option]);
        assert_eq!(ran.stdout, format!("socklens {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    }
}

/// No shell runs, so what only a shell can do is a mistake, and the text says what to write instead.
#[test]
fn a_command_for_a_shell_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    for (command, reason) in [
        ("echo a | cat", "`|` is for a shell, and no shell runs. To run one, write sh -c 'echo a | cat'"),
        ("\"echo a > b\"", "`>` is for a shell, and no shell runs. To run one, write sh -c 'echo a > b'"),
        ("test -S $SOCKLENS_FOLDER/x", "`$SOCKLENS_FOLDER` is for a shell"),
        ("exit 3", "`exit` is for a shell"),
        ("echo 'a", "a quote in \"echo 'a\" is not closed"),
    ] {
        let ran = run_file(folder.path(), &format!("host A\nrun A {command} -> 0\n"), &[]);
        assert_eq!(ran.status, Some(2), "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains("line 2") && ran.stderr.contains(reason), "{command}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{command}");
    }
}

/// A student sees why a program has failed.
#[test]
fn a_program_that_fails_or_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let text = "run A no-such-program 1 -> ENOENT
run B sh -c 'echo \"$SOCKLENS_FOLDER\" | wc -l; echo wrong >&2; exit 4' -> 4
run B sh -c 'echo fine; echo progress >&2' -> 0
";
    let ran = run_file(folder.path(), text, &["--tier", "loopback"]);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    for part in [
        "A: no-such-program cannot be started: No such file or directory",
        "B printed: 1",
        "B printed to the standard error: wrong",
        "B printed: fine",
    ] {
        assert!(ran.stdout.contains(part), "{part}:\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("error: progress"), "{}", ran.stdout);
}

#[test]
fn a_decision_about_a_packet_that_never_comes_says_what_is_held() {
    if !has_wire() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = "wire hold
C = A.socket(AF_INET, SOCK_STREAM)
C.connect((\"10.0.0.2\", 80)) &
wire deliver FIN within 0.2s
";
    let ran = run_file(folder.path(), text, &["--quiet"]);
    assert_eq!(ran.status, Some(1), "{}", ran.stdout);
    let seen =
        "line 4: wire deliver FIN within 0.2s\n  seen: no such packet in 0.2 s; the wire holds A > B SYN";
    assert!(ran.stdout.contains(seen), "{}", ran.stdout);
}

/// The number of packets that the kernel sends again depends on the time that passes.
#[test]
fn a_packet_that_is_sent_again_counts_once_and_is_delivered_once() {
    if !has_wire() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = "L = B.socket(AF_INET, SOCK_STREAM)
L.bind((\"10.0.0.2\", 80))
L.listen(5)
wire hold
C = A.socket(AF_INET, SOCK_STREAM)
C.connect((\"10.0.0.2\", 80)) &
expect C.retrans == 1 within 3s
expect wire.held == 1
wire deliver SYN
expect wire.held == 1 and count(B, SYN-RECV) == 1
wire deliver SYN within 0.3s
";
    let ran = run_file(folder.path(), text, &[]);
    assert_eq!(ran.status, Some(1), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("SYN      seq 0               held").count(), 2, "{}", ran.stdout);
    let failed = "FAILED test.scn line 11: wire deliver SYN within 0.3s\n  seen: no such packet in 0.3 s; the \
                  wire holds B > A SYN+ACK";
    assert!(ran.stdout.contains(failed), "{}", ran.stdout);
}

/// tshark is not everywhere.
#[test]
fn wireshark_reads_packets_comments_and_checksums() {
    if !has_wire() {
        return;
    }
    if Command::new("tshark").arg("--version").output().is_err() {
        assert!(std::env::var_os("SOCK_REQUIRE_LENS").is_none(), "tshark is missing");
        eprintln!("NOT RUN: tshark is missing");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reset.pcapng");
    socklens(&["run", "reset", "--quiet", "--pcapng", file.to_str().unwrap()]);
    let fields = ["frame.interface_name", "frame.comment", "tcp.checksum.status", "ip.checksum.status"];
    let mut command = Command::new("tshark");
    command.args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-T", "fields", "-r"]);
    command.arg(&file);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(
        output.contains("wire at B\theld, then dropped: PSH+ACK  seq 6 ack 34 len 6\t1\t1"),
        "{output}"
    );
    assert!(output.lines().count() > 10 && output.lines().all(|line| line.ends_with("\t1\t1")), "{output}");
}

/// A filter that refuses unshare(2), as in a container.
#[test]
fn without_namespaces_the_reason_is_printed_and_loopback_is_used() {
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let unshare = match std::env::consts::ARCH {
        "x86_64" => 272,
        _ => 97,
    };
    let refuse = SeccompAction::Errno(1);
    let filter =
        SeccompFilter::new([(unshare, vec![])].into(), SeccompAction::Allow, refuse, arch).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    thread::spawn(move || {
        // Programs that this thread starts inherit the filter.
        seccompiler::apply_filter(&filter).unwrap();
        let ran = socklens(&["run", "half_close"]);
        assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
        for part in
            ["no wire\n", "note: no veth: unshare(CLONE_NEWUSER): ", "are forbidden here", "note: no tun: "]
        {
            assert!(ran.stdout.contains(part), "{part}:\n{}", ran.stdout);
        }
        let ran = socklens(&["run", "hello"]);
        assert_eq!(ran.status, Some(NOT_RUN));
        assert!(
            ran.stdout.contains("hello: NOT RUN: it needs a wire, and there is no veth: "),
            "{}",
            ran.stdout
        );
        let ran = socklens(&["run", "half_close", "--tier", "veth"]);
        assert_eq!(ran.status, Some(NOT_RUN));
        assert!(ran.stdout.contains("NOT RUN: no veth: "), "{}", ran.stdout);
    })
    .join()
    .unwrap();
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// What `docs/teaching.md` says about a line of a scenario.
#[test]
fn the_lines_that_the_page_for_teachers_names_exist() {
    let page = fs::read_to_string(repository("docs/teaching.md")).unwrap();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for (quote, name, number, text) in [
        ("Press Step until line 9", "hello", 9, "A1.connect("),
        ("After step 3, line 12 fails", "hello", 12, "expect A1.state == SYN-SENT"),
        ("Line 7 is `wire hold`, and line 9 calls `connect`", "hello", 7, "wire hold"),
        ("change 24 to 33 in line 11", "reset", 11, "expect B1.recvq == 24"),
        ("9  A1.shutdown(SHUT_WR)", "half_close", 9, "A1.shutdown(SHUT_WR)"),
    ] {
        let quote = quote.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(page.contains(&quote), "{quote}");
        let scenario = socklens(&["show", name]).stdout;
        let line = scenario.lines().nth(number - 1).unwrap();
        assert!(line.starts_with(text), "{name} line {number}: {line}");
    }
}

#[test]
fn the_page_for_teachers_lists_every_lesson() {
    let page = fs::read_to_string(repository("docs/teaching.md")).unwrap();
    for (index, line) in socklens(&["list"]).stdout.lines().enumerate() {
        let (name, title) = line.split_once(' ').unwrap();
        let (title, needs) = match title.trim().strip_suffix(" (not on loopback)") {
            Some(title) => (title, "no"),
            None => (title.trim(), "yes"),
        };
        let row = format!("| {} | `{name}` | {title} | {needs} |", index + 1);
        assert!(page.lines().any(|line| line == row), "{row}");
    }
}

/// The template cannot be run before it is filled in, and the solution is true.
#[test]
fn homework_is_graded_by_its_values_only() {
    let homework = repository("crates/socklens/homework");
    let path = |name: &str| homework.join(name).to_str().unwrap().to_owned();
    let ran = socklens(&["run", &path("queue.scn"), "--quiet"]);
    assert_eq!(ran.status, Some(2), "{}", ran.stdout);
    let ran = socklens(&["run", &path("queue_solution.scn"), "--quiet"]);
    if ran.status == Some(NOT_RUN) {
        assert!(std::env::var_os("SOCK_REQUIRE_LENS").is_none(), "{}", ran.stdout);
        eprintln!("NOT RUN: {}", ran.stdout);
        return;
    }
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    assert!(ran.stdout.contains("2 passed, 0 failed"), "{}", ran.stdout);
    let solution = fs::read_to_string(path("queue_solution.scn")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_socklens")).parent().unwrap();
    let search = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let grade = |text: &str| {
        let file = folder.path().join("handed_in.scn");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(homework.join("grade"));
        command.arg(homework.join("queue.scn")).arg(&file).env("PATH", &search);
        let output = command.output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let template = fs::read_to_string(path("queue.scn")).unwrap();
    for (text, expected) in [
        (solution.clone(), ": points 2\n"),
        (solution.replace('\n', "\r\n"), ": points 2\n"),
        (solution.replace("== 9", "== 8"), ": points 1\n"),
        (template, ": points 0, socklens: "),
        (solution.replace("B1.recvq == 9", "1 == 1"), ": not graded, other lines were changed"),
        (solution.replace("== 9", "== B1.recvq"), ": not graded, other lines were changed"),
        (solution.replace("== 9", "== 9 and 1 == 1"), ": not graded, other lines were changed"),
        ("# Nothing.\n".to_owned(), ": not graded, other lines were changed"),
        (solution.clone() + "  run A true\n", "These lines run programs."),
    ] {
        let graded = grade(&text);
        assert!(graded.contains(expected), "{text}\n{graded}");
    }
}
