//! The promise: `--help` prints the usage, and an error is a sentence with the address.

use std::fs;
use std::path::Path;

use sock::{AF_INET, SOCK_DGRAM, SOCK_STREAM, Socket};

use crate::PROGRAMS;
use crate::program::{Directory, Language, Program, languages};

#[test]
fn help_prints_the_usage_on_standard_output() {
    for (name, arguments) in PROGRAMS {
        for &language in languages() {
            // Also after other arguments.
            let cases = [vec!["--help"], vec!["-h"], vec!["127.0.0.1", "--help"]];
            // Started at the same time, because the start takes most of the time.
            for program in cases.map(|words| Program::start(language, name, &words)) {
                let output = program.finish();
                let (usage, defaults) = output.split_once('\n').expect("two lines");
                assert_eq!(usage, format!("usage: {name} {arguments}"), "{language:?}");
                let defaults = defaults.strip_prefix("defaults: ").expect("the defaults");
                assert_eq!(
                    defaults.split(' ').count(),
                    arguments.matches('[').count(),
                    "{name}: {defaults}"
                );
            }
        }
    }
}

/// Runs a Rust program that fails, and checks that it prints one line that contains `subject`.
fn fails(name: &str, arguments: &[&str], subject: &str) {
    let mut program = Program::start(Language::Rust, name, arguments);
    // It connects after the first line of input.
    if name == "wrote_client" {
        program.answer("Ada");
    }
    let (output, error) = program.finish_with(1);
    let context = format!("{name} {arguments:?} printed {output:?} and {error:?}");
    assert!(error.contains(subject), "no {subject:?}: {context}");
    assert!(error.ends_with('\n') && error.matches('\n').count() == 1, "not one line: {context}");
    for word in ["kind:", "Custom", "Os {", "panicked"] {
        assert!(!error.contains(word), "{word:?}: {context}");
    }
}

/// No server can bind an address that is bound without `SO_REUSEADDR`, and as long as it does not
/// listen no client can connect to it.
#[test]
fn an_address_that_cannot_be_used_is_named() {
    let bound = |kind| {
        let sock = Socket::new(AF_INET, kind, 0).expect("a socket");
        sock.bind(("127.0.0.1", 0)).expect("bind");
        let port = sock.getsockname().expect("its address").port().expect("a port").to_string();
        (sock, port)
    };
    let (_tcp, tcp) = bound(SOCK_STREAM);
    let (_udp, udp) = bound(SOCK_DGRAM);
    let directory = Directory::new("errors");
    let path = directory.join("taken");
    let path = path.to_str().expect("UTF-8");
    fs::write(path, "not a socket").expect("write");
    let certificates = directory.join("certs");
    let certificates = certificates.to_str().expect("UTF-8");
    Program::start(Language::Rust, "make_ca", &[certificates]).finish();

    for (name, arguments) in PROGRAMS {
        if arguments.contains("[PATH]") {
            fails(name, &[path], path);
            continue;
        }
        // The address is bound by a datagram socket, which can receive and does not answer.
        let port = if name.starts_with("udp") { &udp } else { &tcp };
        let mut words = vec!["127.0.0.1", port];
        if arguments.contains("CERTS") {
            words.push(certificates);
        }
        if arguments.contains("FILE") {
            words.push(path);
        }
        fails(name, &words, &format!("127.0.0.1:{port}"));
    }
}

#[test]
fn a_missing_certificate_is_named() {
    for (name, arguments) in PROGRAMS {
        if arguments.contains("CERTS") {
            fails(name, &["127.0.0.1", "0", "no such directory"], "no such directory");
        }
    }
    assert!(!Path::new("no such directory").exists());
}
