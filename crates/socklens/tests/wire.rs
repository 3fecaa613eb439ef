//! The promise: a wire that delays packets delivers each after its delay, and earlier only if the
//! scenario lets all packets pass.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;

const NOT_RUN: i32 = 77;

/// Value of a key in a line of JSON, without quotes.
fn key<'a>(line: &'a str, key: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {line}"));
    rest.split([',', '}']).next().unwrap().trim_matches('"')
}

#[test]
fn a_delayed_packet_is_shown_as_delayed_and_received_after_the_delay() {
    let folder = tempfile::tempdir().unwrap();
    let (scenario, recording) = (folder.path().join("test.scn"), folder.path().join("test.jsonl"));
    let text = "S = B.socket(AF_INET, SOCK_DGRAM)
S.bind((\"10.0.0.2\", 5353))
C = A.socket(AF_INET, SOCK_DGRAM)
wire delay 300
C.sendto(b\"x\", (\"10.0.0.2\", 5353))
S.recv(1) -> b\"x\" within 15s
wire delay 60000
C.sendto(b\"y\", (\"10.0.0.2\", 5353))
expect wire.held == 1 within 15s
S.recv(1) -> blocks
wire pass
join S -> b\"y\" within 15s
";
    fs::write(&scenario, text).unwrap();
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_socklens"), "run", "--jsonl"]).args([&recording, &scenario]);
    let output = command.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    if output.status.code() == Some(NOT_RUN) {
        assert!(std::env::var_os("SOCK_REQUIRE_LENS").is_none(), "{stdout}");
        eprintln!("NOT RUN: {stdout}");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    for fate in ["delayed", "delivered"] {
        let row = format!("wire    A -> B  UDP      len 1               {fate}\n");
        assert_eq!(stdout.matches(&row).count(), 2, "{fate}:\n{stdout}");
    }

    let recording = fs::read_to_string(&recording).unwrap();
    let of_kind = |kind: &str| recording.lines().filter(|line| key(line, "k") == kind).collect::<Vec<_>>();
    let (packets, fates, returns) = (of_kind("pkt"), of_kind("fate"), of_kind("ret"));
    assert_eq!((packets.len(), fates.len()), (2, 2), "{recording}");
    for (packet, fate) in packets.iter().zip(&fates) {
        assert_eq!((key(packet, "fate"), key(fate, "fate")), ("delayed", "delivered"), "{recording}");
        assert_eq!(key(packet, "id"), key(fate, "id"), "{recording}");
    }
    let time = |line: &str| key(line, "t").parse::<f64>().unwrap();
    // Times are rounded to microseconds.
    assert!(time(fates[0]) - time(packets[0]) >= 0.299_99, "{} {}", packets[0], fates[0]);
    for (value, fate) in [("b\\\"x\\\"", fates[0]), ("b\\\"y\\\"", fates[1])] {
        let received = returns.iter().find(|line| line.contains(value)).unwrap();
        assert!(time(received) > time(fate), "{received} {fate}");
    }
}
