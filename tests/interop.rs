//! Runs every program in `examples/` and `crates/sockssl/examples/` with its Python twin in
//! `examples/python/`.
//!
//! A server and its client run in all four combinations of the two languages. Each must write the
//! transcript in the test, in which only ports and temporary paths are replaced. Interactive programs
//! run with pipes and on a pseudo-terminal.
//!
//! No test sleeps to synchronise. A server prints when it listens, and every wait has a limit. Without
//! `python3` the combinations with Python are skipped with a message. With `SOCK_REQUIRE_PYTHON=1`
//! that is a failure.

#[path = "interop/errors.rs"]
mod errors;
#[path = "interop/http.rs"]
mod http;
#[path = "interop/lasting.rs"]
mod lasting;
#[path = "interop/models.rs"]
mod models;
#[path = "interop/operations.rs"]
mod operations;
#[path = "interop/outer.rs"]
mod outer;
#[path = "interop/program.rs"]
mod program;
#[path = "interop/rfc9112.rs"]
mod rfc9112;
#[path = "interop/service.rs"]
mod service;
#[path = "interop/transcript.rs"]
mod transcript;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use program::{ANY_PORT, Directory, Language, Program, Terminal, languages};
use sock::{AF_INET, SOCK_STREAM, Socket};

/// The folder of the examples that use `sockssl`. The others do not compile it.
const TLS_EXAMPLES: &str = "crates/sockssl/examples";

/// The programs with their arguments.
const PROGRAMS: [(&str, &str); 50] = [
    ("careful", "[HOST [PORT]]"),
    ("careful_client", "[HOST [PORT]]"),
    ("chat", "[HOST [PORT]]"),
    ("chat_polling", "[HOST [PORT]]"),
    ("chat_tls", "[HOST [PORT [CERTS]]]"),
    ("echo_pool", "[HOST [PORT]]"),
    ("echo_prefork", "[HOST [PORT]]"),
    ("echo_select", "[HOST [PORT]]"),
    ("echo_selector", "[HOST [PORT]]"),
    ("echo_tcp", "[HOST [PORT]]"),
    ("echo_tcp_client", "[HOST [PORT]]"),
    ("echo_threading", "[HOST [PORT]]"),
    ("echo_tls", "[HOST [PORT [CERTS]]]"),
    ("echo_unix", "[PATH]"),
    ("echo_unix_client", "[PATH]"),
    ("echo_unix_dgram", "[PATH]"),
    ("echo_unix_dgram_client", "[PATH]"),
    ("file_transfer", "[HOST [PORT [FILE]]]"),
    ("file_transfer_client", "[HOST [PORT [FILE]]]"),
    ("five_calls", "[HOST [PORT]]"),
    ("five_calls_client", "[HOST [PORT]]"),
    ("fixed", "[HOST [PORT]]"),
    ("fixed_client", "[HOST [PORT]]"),
    ("forks", "[HOST [PORT]]"),
    ("forks_by_hand", "[HOST [PORT]]"),
    ("graceful_shutdown", "[HOST [PORT]]"),
    ("greeting", "[HOST [PORT]]"),
    ("greeting_client", "[HOST [PORT]]"),
    ("handover", "[HOST [PORT [PATH]]]"),
    ("http_get", "[HOST [PORT [PATH]]]"),
    ("http_page", "[HOST [PORT [MODEL]]]"),
    ("https_page", "[HOST [PORT [CERTS]]]"),
    ("make_ca", "[PATH]"),
    ("limits", "[HOST [PORT]]"),
    ("many_clients", "[HOST [PORT]]"),
    ("mtls_whoami", "[HOST [PORT [CERTS]]]"),
    ("peer_credentials", "[PATH]"),
    ("service", "[HOST [PORT [MODEL [LAME_DUCK [PROXY [PAGE]]]]]]"),
    ("talk", "[HOST [PORT]]"),
    ("talk_client", "[HOST [PORT]]"),
    ("tcp_info", "[HOST [PORT]]"),
    ("threads", "[HOST [PORT]]"),
    ("threads_by_hand", "[HOST [PORT]]"),
    ("tls_by_hand", "[HOST [PORT [CERTS]]]"),
    ("tls_client", "[HOST [PORT [CERTS]]]"),
    ("udp", "[HOST [PORT]]"),
    ("udp_batch", "[HOST [PORT]]"),
    ("udp_client", "[HOST [PORT]]"),
    ("wrote", "[HOST [PORT]]"),
    ("wrote_client", "[HOST [PORT]]"),
];

/// Runs a server and a client in all combinations of languages.
fn pairings(converse: impl Fn(Language, Language)) {
    for &server in languages() {
        for &client in languages() {
            // Printed only if this combination fails.
            println!("{server:?} server, {client:?} client");
            converse(server, client);
        }
    }
}

/// Runs all combinations, with pipes and on pseudo-terminals.
fn pairings_on_terminals(converse: impl Fn(Terminal, Language, Language)) {
    for terminal in [Terminal::Pipe, Terminal::Pty] {
        println!("through {terminal:?}");
        pairings(|server, client| converse(terminal, server, client));
    }
}

#[test]
fn echo_tcp() {
    pairings(|server, client| {
        let mut server = Program::start(server, "echo_tcp", &ANY_PORT);
        let client = Program::start(client, "echo_tcp_client", &server.address());
        assert_eq!(client.finish(), "answer: Hello, world!\n");
        assert_eq!(
            server.finish(),
            "listening on 127.0.0.1:SERVER\n\
             127.0.0.1:PORT connected\n\
             got: Hello, world!\n"
        );
    });
}

#[test]
fn echo_threading() {
    let expected = "echo is listening on 127.0.0.1:SERVER, a thread for each connection\n\
                    connect with: nc 127.0.0.1 SERVER\n\
                    or in Python:\n    \
                    import socket\n    \
                    sock = socket.create_connection((\"127.0.0.1\", SERVER))\n    \
                    sock.sendall(b\"hello\\n\")\n    \
                    print(sock.recv(1024))\n";
    pairings(|server, client| {
        let mut server = Program::start(server, "echo_threading", &ANY_PORT);
        let address = server.address();
        let client = Program::start(client, "echo_tcp_client", &address);
        assert_eq!(client.finish(), "answer: Hello, world!\n");

        // The Python client that its header recommends.
        if languages().contains(&Language::Python) {
            let script: Vec<_> = expected.lines().filter_map(|line| line.strip_prefix("    ")).collect();
            let mut command = Command::new("python3");
            command.arg("-c").arg(script.join("\n").replace("SERVER", &address[1]));
            let python = Program::spawn(Terminal::Pipe, command, "the advice".into(), String::new());
            assert_eq!(python.finish(), "b'hello\\n'\n");
        }
        assert_eq!(server.stop_after(expected), expected);
    });
}

#[test]
fn five_calls() {
    pairings(|server, client| {
        let mut server = Program::start(server, "five_calls", &ANY_PORT);
        let mut client = Program::start(client, "five_calls_client", &server.address());
        let own = client.line_after("connected from ");
        assert_eq!(client.finish(), "connected from 127.0.0.1:PORT\n");
        // Both print the same client address.
        server.expect(&format!("{own}\n"));
        assert_eq!(server.finish(), "listening on 127.0.0.1:SERVER\n127.0.0.1:PORT\n");
    });
}

#[test]
fn talk() {
    pairings_on_terminals(|terminal, server, client| {
        let mut server = Program::start_on(terminal, server, "talk", &ANY_PORT);
        let mut client = Program::start_on(terminal, client, "talk_client", &server.address());
        client.answer("who is there?");
        server.answer("only me");
        client.answer("");
        server.answer("");
        client.answer("bye");
        server.answer("q");
        client.answer("q");
        assert_eq!(client.finish(), "> who is there?\nonly me\n>\n\n> bye\nq\n> q\n");
        assert_eq!(
            server.finish(),
            "listening on 127.0.0.1:SERVER\n\
             127.0.0.1:PORT connected\n\
             WHO IS THERE?\n> only me\n\n>\nBYE\n> q\n"
        );
    });
}

#[test]
fn talk_ends_when_the_server_leaves() {
    pairings_on_terminals(|terminal, server, client| {
        let mut server = Program::start_on(terminal, server, "talk", &ANY_PORT);
        let mut client = Program::start_on(terminal, client, "talk_client", &server.address());
        client.answer("hello?");
        server.end_of_input();
        assert_eq!(client.finish(), "> hello?\n");
        assert_eq!(server.finish(), "listening on 127.0.0.1:SERVER\n127.0.0.1:PORT connected\nHELLO?\n>\n");
    });
}

#[test]
fn file_transfer() {
    let directory = Directory::new("file_transfer");
    let (original, copy) = (directory.join("original"), directory.join("copy"));
    // Not a multiple of the chunk size, and without a period of that size.
    let bytes: Vec<u8> = (0..100_001_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    fs::write(&original, &bytes).expect("write");
    pairings_on_terminals(|terminal, server, client| {
        let arguments = ["127.0.0.1".into(), "0".into(), original.clone()];
        let mut server = Program::start_on(terminal, server, "file_transfer", &arguments);
        let [host, port] = server.address();
        let arguments = [host.into(), port.into(), copy.clone()];
        let client = Program::start_on(terminal, client, "file_transfer_client", &arguments);
        // The progress bar is drawn on a terminal only.
        let bar = if terminal == Terminal::Pty { "100001 bytes\n" } else { "" };
        assert_eq!(directory.hide(&client.finish()), format!("{bar}received 100001 bytes into DIR/copy\n"));
        assert_eq!(
            server.finish(),
            "listening on 127.0.0.1:SERVER\n127.0.0.1:PORT says: hello\nsent 100001 bytes\n"
        );
        assert!(fs::read(&copy).expect("read") == bytes, "the copy differs");
        fs::remove_file(&copy).expect("remove_file");
    });
}

#[test]
fn wrote() {
    let expected = "listening on 127.0.0.1:SERVER\n\
                    127.0.0.1:PORT wrote:\nfirst\n> one\n\
                    127.0.0.1:PORT wrote:\nsecond\n> two\n\
                    127.0.0.1:PORT wrote:\nthird\n>\n";
    pairings_on_terminals(|terminal, server, client| {
        let mut server = Program::start_on(terminal, server, "wrote", &ANY_PORT);
        let mut client = Program::start_on(terminal, client, "wrote_client", &server.address());
        client.answer("first");
        server.answer("one");
        client.answer("second");
        server.answer("two");
        client.answer("third");
        server.end_of_input();
        client.end_of_input();
        assert_eq!(client.finish(), "> first\none\n> second\ntwo\n> third\n\n>\n");
        assert_eq!(server.stop_after(expected), expected);
    });
}

#[test]
fn greeting() {
    let expected = "listening on 127.0.0.1:SERVER\n127.0.0.1:PORT connected\n127.0.0.1:PORT left\n";
    pairings_on_terminals(|terminal, server, client| {
        let mut server = Program::start(server, "greeting", &ANY_PORT);
        let mut client = Program::start_on(terminal, client, "greeting_client", &server.address());
        client.answer("Ada");
        client.answer("Grace Hopper");
        client.end_of_input();
        assert_eq!(
            client.finish(),
            "hello!\n> Ada\nHello, Ada!\n> Grace Hopper\nHello, Grace Hopper!\n>\n"
        );
        assert_eq!(server.stop_after(expected), expected);
    });
}

#[test]
fn greeting_restarts_at_once() {
    let expected = "listening on 127.0.0.1:SERVER\n127.0.0.1:PORT connected\n127.0.0.1:PORT left\n";
    pairings(|server_language, client_language| {
        let mut arguments = ANY_PORT.map(String::from);
        for _ in 0..3 {
            let mut server = Program::start(server_language, "greeting", &arguments);
            arguments = server.address();
            let mut client = Program::start(client_language, "greeting_client", &arguments);
            client.answer("exit");
            assert_eq!(client.finish(), "hello!\n> exit\n");
            assert_eq!(server.stop_after(expected), expected);
        }
        // Without SO_REUSEADDR the second server would fail: the first closed
        // first, so its connections are in TIME_WAIT.
        let [host, port] = &arguments;
        let port: u16 = port.parse().expect("a port");
        let plain = Socket::new(AF_INET, SOCK_STREAM, 0).expect("socket");
        let taken = plain.bind((host.as_str(), port)).expect_err("nothing lingers");
        assert_eq!(sock::errno(&taken).and_then(sock::errno_name), Some("EADDRINUSE"));
    });
}

#[test]
fn fixed() {
    pairings(|server, client| {
        let mut server = Program::start(server, "fixed", &ANY_PORT);
        let client = Program::start(client, "fixed_client", &server.address());
        assert_eq!(client.finish(), "server says: Hello, client!\n");
        assert_eq!(
            server.finish(),
            "listening on 127.0.0.1:SERVER\n\
             127.0.0.1:PORT connected\n\
             client says: Hello, server!\n"
        );
    });
}

#[test]
fn careful() {
    pairings(|server, client| {
        let mut server = Program::start(server, "careful", &ANY_PORT);
        let client = Program::start(client, "careful_client", &server.address());
        assert_eq!(client.finish(), "server says: Hello, client!\nsocket closed\n");
        assert_eq!(
            server.finish(),
            "listening on 127.0.0.1:SERVER\n\
             127.0.0.1:PORT connected\n\
             client says: Hello, server!\n\
             connection closed\n\
             server closed\n"
        );
    });
}

/// Returns a bound socket and the arguments with its address.
fn bound() -> (Socket, [String; 2]) {
    let socket = Socket::new(AF_INET, SOCK_STREAM, 0).expect("socket");
    socket.settimeout(program::LIMIT).expect("settimeout");
    socket.bind(("127.0.0.1", 0)).expect("bind");
    let port = socket.getsockname().expect("getsockname").port().expect("a port");
    (socket, ["127.0.0.1".to_owned(), port.to_string()])
}

#[test]
fn careful_client_names_connection_refused() {
    // The socket reserves the port, so that no other program listens there.
    let (taken, arguments) = bound();
    let refused = Socket::new(AF_INET, SOCK_STREAM, 0)
        .and_then(|sock| sock.connect(taken.getsockname()?))
        .expect_err("the connect succeeded");
    let number = refused.raw_os_error().expect("an errno");
    for &language in languages() {
        let client = Program::start(language, "careful_client", &arguments);
        let error = format!("error: {}: ECONNREFUSED, errno {number}\n", arguments.join(":"));
        assert_eq!(client.finish_with(1), ("socket closed\n".to_owned(), error));
    }
}

#[test]
fn careful_programs_name_a_host_that_does_not_resolve() {
    // Fails without a query to a name server.
    let arguments = ["no such host", "0"];
    for (name, output) in [("careful", "server closed\n"), ("careful_client", "socket closed\n")] {
        let errors: BTreeSet<String> = languages()
            .iter()
            .map(|&language| {
                let (stdout, error) = Program::start(language, name, &arguments).finish_with(1);
                assert_eq!(stdout, output);
                error
            })
            .collect();
        let error = errors.first().expect("at least one language");
        assert!(error.starts_with("error: no such host:0: EAI_NONAME, getaddrinfo error "), "{error}");
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
}

#[test]
fn careful_names_a_port_in_use() {
    let (taken, arguments) = bound();
    taken.listen(None).expect("listen");
    let refused = Socket::new(AF_INET, SOCK_STREAM, 0)
        .and_then(|sock| sock.bind(taken.getsockname()?))
        .expect_err("the bind succeeded");
    let number = refused.raw_os_error().expect("an errno");
    for &language in languages() {
        let server = Program::start(language, "careful", &arguments);
        let error = format!("error: {}: EADDRINUSE, errno {number}\n", arguments.join(":"));
        assert_eq!(server.finish_with(1), ("server closed\n".to_owned(), error));
    }
}

#[test]
fn careful_programs_report_a_peer_that_disconnects() {
    for &language in languages() {
        let mut server = Program::start(language, "careful", &ANY_PORT);
        let [host, port] = server.address();
        let port: u16 = port.parse().expect("a port");
        let client = sock::create_connection((host, port)).expect("connect");
        client.settimeout(program::LIMIT).expect("settimeout");
        // Closing with the greeting unread would send a reset.
        assert_eq!(client.recv(100).expect("recv"), b"Hello, client!\n");
        drop(client);
        let (output, error) = server.finish_with(1);
        assert!(output.ends_with(" connected\nconnection closed\nserver closed\n"), "{output}");
        assert_eq!(error, "error: 127.0.0.1:0: the client disconnected without an answer\n");

        let (server, arguments) = bound();
        server.listen(None).expect("listen");
        let client = Program::start(language, "careful_client", &arguments);
        drop(server.accept().expect("accept"));
        let error = format!("error: {}: the server disconnected without a greeting\n", arguments.join(":"));
        assert_eq!(client.finish_with(1), ("socket closed\n".to_owned(), error));
    }
}

#[test]
fn careful_client_times_out() {
    // It listens and never sends data.
    let (server, arguments) = bound();
    server.listen(None).expect("listen");
    let clients: Vec<_> = languages()
        .iter()
        .map(|&language| Program::start(language, "careful_client", &arguments))
        .collect();
    for client in clients {
        let error = format!("error: {}: timed out\n", arguments.join(":"));
        assert_eq!(client.finish_with(1), ("socket closed\n".to_owned(), error));
    }
}

#[test]
fn udp() {
    let expected = "listening on 127.0.0.1:SERVER\n127.0.0.1:PORT sent: hello over udp\n";
    pairings(|server, client| {
        let mut server = Program::start(server, "udp", &ANY_PORT);
        let client = Program::start(client, "udp_client", &server.address());
        assert_eq!(client.finish(), "127.0.0.1:SERVER answers: HELLO OVER UDP\n");
        assert_eq!(server.stop_after(expected), expected);
    });
}

/// Runs one of the four servers for several clients with their client.
fn many_clients(name: &str) {
    let expected = "listening on 127.0.0.1:SERVER\n\
                    127.0.0.1:PORT: hello from client 3\n\
                    127.0.0.1:PORT: hello from client 2\n\
                    127.0.0.1:PORT: hello from client 1\n";
    pairings(|server, client| {
        let mut server = Program::start(server, name, &ANY_PORT);
        let client = Program::start(client, "many_clients", &server.address());
        assert_eq!(
            client.finish(),
            "client 3: HELLO FROM CLIENT 3\n\
             client 2: HELLO FROM CLIENT 2\n\
             client 1: HELLO FROM CLIENT 1\n"
        );
        assert_eq!(server.stop_after(expected), expected);
    });
}

#[test]
fn threads_by_hand() {
    many_clients("threads_by_hand");
}

#[test]
fn threads() {
    many_clients("threads");
}

#[test]
fn forks_by_hand() {
    many_clients("forks_by_hand");
}

#[test]
fn forks() {
    many_clients("forks");
}

#[test]
fn echo_unix() {
    pairings(|server, client| {
        let directory = Directory::new("echo_unix");
        let path = [directory.join("echo")];
        let mut server = Program::start(server, "echo_unix", &path);
        server.listening_on();
        let client = Program::start(client, "echo_unix_client", &path);
        assert_eq!(client.finish(), "answer: Hello, neighbour!\n");
        assert_eq!(
            directory.hide(&server.finish()),
            "listening on DIR/echo\nconnected\ngot: Hello, neighbour!\n"
        );
        assert!(directory.names().is_empty(), "{:?} was not removed", directory.names());
    });
}

#[test]
fn echo_unix_dgram() {
    pairings(|server, client| {
        let directory = Directory::new("echo_unix_dgram");
        let path = [directory.join("echo")];
        let mut server = Program::start(server, "echo_unix_dgram", &path);
        server.listening_on();
        let client = Program::start(client, "echo_unix_dgram_client", &path);
        assert_eq!(directory.hide(&client.finish()), "DIR/echo answers: Hello, neighbour!\n");
        assert_eq!(
            directory.hide(&server.finish()),
            "listening on DIR/echo\nDIR/echo.client sent: Hello, neighbour!\n"
        );
        assert!(directory.names().is_empty(), "{:?} was not removed", directory.names());
    });
}

#[test]
fn wrong_arguments_are_refused_in_one_line() {
    let words = ["127.0.0.1", "1", "x", "more", "words", "than", "used"];
    for (name, usage) in PROGRAMS {
        let usage = format!("usage: {name} {usage}");
        let count = usage.matches('[').count();
        let mut cases = vec![
            (vec!["--wrong"], format!("unexpected option '--wrong'; {usage}")),
            (words[..=count].to_vec(), format!("unexpected argument '{}'; {usage}", words[count])),
        ];
        if usage.contains("PORT") {
            for port in ["abc", "99999", "65536", "-1", ""] {
                let complaint = format!("PORT must be a number from 0 to 65535, not '{port}'");
                cases.push((vec!["127.0.0.1", port], complaint));
            }
        }
        if name == "file_transfer" {
            let complaint = "FILE 'no such file' cannot be opened: ENOENT, errno 2".to_owned();
            cases.push((vec!["127.0.0.1", "0", "no such file"], complaint));
        }
        for &language in languages() {
            let start = |(arguments, complaint): &(Vec<&str>, String)| {
                (Program::start(language, name, arguments), format!("{name}: {complaint}\n"))
            };
            // Started at the same time, because the start takes most of the time.
            let programs: Vec<_> = cases.iter().map(start).collect();
            for (program, complaint) in programs {
                assert_eq!(program.finish_with(2), (String::new(), complaint), "{language:?}");
            }
        }
    }
}

#[test]
fn rust_log_shows_each_call() {
    let mut command = Command::new(program::example("five_calls"));
    command.args(ANY_PORT).env("RUST_LOG", "sock=trace");
    let mut server = Program::spawn(Terminal::Pipe, command, "five_calls".into(), String::new());
    let client = Program::start(Language::Rust, "five_calls_client", &server.address());
    client.finish();
    let (_, log) = server.finish_with(0);
    let mut rest = log.as_str();
    for call in ["socket(AF_INET, SOCK_STREAM, 0)", "bind(", "listen(", "accept(", "close("] {
        let at = rest.find(call).unwrap_or_else(|| panic!("no {call} in order in\n{log}"));
        rest = &rest[at..];
    }
}

/// Returns the default arguments in a program's source, as on a command line.
fn defaults(source: &str, common: &str) -> String {
    let call = ["address(", "address_and(", "address_and_more(", "path("]
        .iter()
        .find_map(|function| source.split_once(&format!("{common}{function}")))
        .unwrap_or_else(|| panic!("no defaults in\n{source}"));
    let arguments = call.1.split_once(')').expect("the call is closed").0;
    let unquoted = |word: &str| word.trim().trim_matches('"').to_owned();
    let mut words: Vec<_> = arguments.split(',').map(unquoted).collect();
    if words.last().is_some_and(|word| word == "more") {
        words.pop();
        // Pairs of a name and a default.
        let more = source.split_once(" more = [").and_then(|(_, rest)| rest.split_once(']'));
        let pairs = more.expect("the further arguments").0.split('(').skip(1);
        words.extend(pairs.map(|pair| unquoted(pair.split([',', ')']).nth(1).expect("a default"))));
    } else if let [_, _, _, _] = words[..] {
        // The third argument is a name, not a default.
        words.remove(2);
    }
    words.join(" ")
}

#[test]
fn every_program_has_its_twin_and_says_how_to_run_it() {
    let names = |directory: &str, end: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(program::repository().join(directory)).expect("read_dir");
        let names = entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"));
        names.filter_map(|name| name.strip_suffix(end).map(String::from)).collect()
    };
    let programs: BTreeSet<_> = PROGRAMS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut twins = names("examples/python", ".py");
    assert!(twins.remove("common") && twins.remove("common_tls"));
    let tls = names(TLS_EXAMPLES, ".rs");
    assert_eq!(&names("examples", ".rs") | &tls, programs);
    assert_eq!(twins, programs);

    let readme = fs::read_to_string(program::repository().join("examples/README.md")).expect("README.md");
    for name in programs {
        let (folder, package) =
            if tls.contains(&name) { (TLS_EXAMPLES, " -p sockssl") } else { ("examples", "") };
        let rust = program::repository().join(format!("{folder}/{name}.rs"));
        let rust = fs::read_to_string(rust).expect("an example");
        let arguments = defaults(&rust, "common::");
        assert!(rust.starts_with("//! "), "{name}: no header");
        let features = if name == "service" { " --features service" } else { "" };
        let run = format!("//! cargo run{package} --example {name}{features} -- {arguments}\n");
        assert!(rust.contains(&run), "{name}: no {run}");
        let python = fs::read_to_string(program::twin(&name)).expect("a twin");
        assert_eq!(defaults(&python, "common."), arguments, "defaults of {name}");
        assert!(python.starts_with("\"\"\""), "{name}: no header");
        let run = format!("    python3 examples/python/{name}.py {arguments}\n");
        assert!(python.contains(&run), "{name}: no {run}");
        for text in [&rust, &python] {
            let documented = ["nc ", "curl ", "openssl "].iter().any(|word| text.contains(word));
            assert!(documented, "{name}: the client to use is not documented");
        }
        let source =
            if tls.contains(&name) { format!("../{folder}/{name}.rs") } else { format!("{name}.rs") };
        for link in [format!("]({source})"), format!("](python/{name}.py)")] {
            assert!(readme.contains(&link), "README.md: no {link}");
        }
    }
}
