//! The promise: the example prints the table, and an error is a sentence and an exit status.
#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::{Command, Output};

use sock::{AF_INET, SOCK_STREAM, Socket};

/// The example, which `cargo test` has built beside this program.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(|deps| deps.parent()).unwrap();
    let program = folder.join("examples/mini_ss");
    if !program.exists() {
        // It is not built for a single test.
        let cargo = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "sockdiag", "--example", "mini_ss"])
            .status();
        assert!(cargo.unwrap().success());
    }
    program
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(program()).args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn it_prints_the_columns_of_ss() {
    let server = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    server.bind(("127.0.0.1", 0)).unwrap();
    server.listen(7).unwrap();
    let port = server.getsockname().unwrap().port().unwrap().to_string();
    let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    client.connect(server.getsockname().unwrap()).unwrap();

    let (status, table, errors) = run(&["-tan", "port", &port]);
    assert_eq!((status, &errors[..]), (Some(0), ""));
    let rows: Vec<Vec<_>> = table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let listener = rows.iter().find(|row| row[1] == "LISTEN").unwrap();
    assert_eq!(listener[..], ["tcp", "LISTEN", "1", "7", &format!("127.0.0.1:{port}"), "0.0.0.0:*"]);
    assert_eq!(rows.iter().filter(|row| row[1] == "ESTAB").count(), 2, "{table}");

    let (_, table, _) = run(&["--tcp", "--listening", "--extended", "port", &port]);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains(&format!("sk:{:x} <-> skmem:(r0,", server.cookie().unwrap())), "{table}");
    let (_, table, _) = run(&["state", "established", "port", &port]);
    assert_eq!(table.lines().count(), 3, "{table}");

    let (status, table, errors) = run(&["-tan", "--procfs", "port", &port]);
    // A TIME-WAIT of an earlier test may have the same port.
    let rows = table.lines().filter(|line| !line.contains(" TIME-WAIT "));
    assert_eq!((status, rows.count()), (Some(0), 4), "{table}");
    assert!(errors.contains("missing"), "{errors}");
}

#[test]
fn all_three_kinds_are_shown_by_default() {
    let (unix, _peer) = sock::socketpair().unwrap();
    let udp = Socket::new(AF_INET, sock::SOCK_DGRAM, 0).unwrap();
    udp.bind(("127.0.0.1", 0)).unwrap();
    let (status, table, errors) = run(&["-ae"]);
    assert_eq!((status, &errors[..]), (Some(0), ""));
    for (netid, sock) in [("u_str", &unix), ("udp", &udp)] {
        let cookie = format!(" sk:{:x} ", sock.cookie().unwrap());
        let row = table.lines().find(|line| line.contains(&cookie)).unwrap();
        assert!(row.starts_with(netid), "{row}");
    }
}

#[test]
fn wrong_arguments_are_a_sentence_and_status_2() {
    for (arguments, sentence) in [
        (&["--frobnicate"][..], "mini_ss: --frobnicate is not an option; see mini_ss --help\n"),
        (&["state", "fin-wait-3"], "mini_ss: fin-wait-3 is not a TCP state; see mini_ss --help\n"),
        (&["state"], "mini_ss: the name of a state is missing; see mini_ss --help\n"),
        (&["port", "99999"], "mini_ss: 99999 is not a port; see mini_ss --help\n"),
        (&["-tq"], "mini_ss: -q is not an option; see mini_ss --help\n"),
    ] {
        assert_eq!(run(arguments), (Some(2), String::new(), sentence.to_owned()));
    }
    let (status, help, _) = run(&["--help"]);
    assert_eq!(status, Some(0));
    assert!(help.contains("Usage: mini_ss"), "{help}");
}
