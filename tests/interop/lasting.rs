//! Tests of long-running servers: a chat, limits, and a graceful shutdown.

use std::time::Duration;

use sock::Socket;

use crate::program::{self, ANY_PORT, Program, languages};

fn client_of(address: &[String; 2]) -> Socket {
    let port: u16 = address[1].parse().expect("a port");
    let client = sock::create_connection((address[0].as_str(), port)).expect("connect");
    client.settimeout(program::LIMIT).expect("settimeout");
    client
}

/// Receives a line byte by byte, so that no data of the next line is read.
fn line(client: &Socket) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let byte = client.recv(1).expect("recv");
        assert!(!byte.is_empty(), "end of file after {:?}", String::from_utf8_lossy(&line));
        line.extend(byte);
    }
    String::from_utf8(line).expect("UTF-8")
}

#[test]
fn chat() {
    for &language in languages() {
        let mut server = Program::start(language, "chat", &ANY_PORT);
        let address = server.address();
        let enter = |server: &mut Program, name: &str| {
            let client = client_of(&address);
            client.sendall(format!("{name}\n").as_bytes()).expect("sendall");
            server.expect(&format!("{name} joins\n"));
            client
        };
        let ann = enter(&mut server, "ann");
        let bob = enter(&mut server, "bob");
        assert_eq!(line(&ann), "* bob joined\n");
        ann.sendall(b"hello\nall\n").expect("sendall");
        assert_eq!((line(&bob), line(&bob)), ("ann: hello\n".into(), "ann: all\n".into()));
        bob.sendall(b"hello, ann\n").expect("sendall");
        assert_eq!(line(&ann), "bob: hello, ann\n");

        // A client that does not read delays no other, and is disconnected.
        let sleepy = enter(&mut server, "sleepy");
        assert_eq!((line(&ann), line(&bob)), ("* sleepy joined\n".into(), "* sleepy joined\n".into()));
        // The longest lines that the server receives, fewer at once than bob may be behind.
        let long = format!("{}\n", "x".repeat(999));
        let (sent, expected) = (long.repeat(50), format!("ann: {long}").repeat(50));
        let has_left = |heard: &[u8]| heard.windows(14).any(|text| text == b"* sleepy left\n");
        let mut heard = Vec::new();
        while !has_left(&heard) {
            ann.sendall(sent.as_bytes()).expect("sendall");
            heard.clear();
            while heard.len() < expected.len() && !has_left(&heard) {
                heard.extend(bob.recv(expected.len() - heard.len()).expect("recv"));
            }
            assert!(has_left(&heard) || heard == expected.as_bytes(), "bob has not received all lines");
        }
        server.expect("sleepy is disconnected: 100 lines behind\n");
        assert_eq!(line(&ann), "* sleepy left\n");
        drop((sleepy, bob));
        assert_eq!(line(&ann), "* bob left\n");
        server.expect("bob leaves\n");
    }
}

#[test]
fn chat_polling() {
    for &language in languages() {
        let mut server = Program::start(language, "chat_polling", &ANY_PORT);
        let address = server.address();
        let enter = |server: &mut Program| {
            let client = client_of(&address);
            server.expect(&format!("{} joins\n", client.getsockname().expect("getsockname")));
            client
        };
        let (ann, bob, cid) = (enter(&mut server), enter(&mut server), enter(&mut server));
        ann.sendall(b"hello, all\n").expect("sendall");
        assert_eq!((line(&bob), line(&cid)), ("hello, all\n".into(), "hello, all\n".into()));
        cid.sendall(b"hello, ann\n").expect("sendall");
        assert_eq!((line(&ann), line(&bob)), ("hello, ann\n".into(), "hello, ann\n".into()));
        let name = bob.getsockname().expect("getsockname");
        drop(bob);
        server.expect(&format!("{name} leaves\n"));
        ann.sendall(b"still here\n").expect("sendall");
        assert_eq!(line(&cid), "still here\n");
    }
}

#[test]
fn echo_select() {
    for &language in languages() {
        let mut server = Program::start(language, "echo_select", &ANY_PORT);
        let address = server.address();
        let enter = |server: &mut Program| {
            let client = client_of(&address);
            server.expect(&format!("accepted {}\n", client.getsockname().expect("getsockname")));
            client
        };
        let (ann, bob) = (enter(&mut server), enter(&mut server));
        for client in [&bob, &ann] {
            client.sendall(b"hello\n").expect("sendall");
            server.expect("received 6 bytes\n");
            assert_eq!(line(client), "hello\n");
        }
        drop(ann);
        server.expect("received 0 bytes\nclosing\n");
        // A reset is an end too.
        bob.set_linger(sock::Linger { l_onoff: true, l_linger: 0 }).expect("set_linger");
        drop(bob);
        server.expect("received 0 bytes\nclosing\n");
        let cid = enter(&mut server);
        cid.sendall(b"still here\n").expect("sendall");
        assert_eq!(line(&cid), "still here\n");
    }
}

#[test]
fn limits() {
    for &language in languages() {
        let mut server = Program::start(language, "limits", &ANY_PORT);
        let address = server.address();
        let enter = || {
            let client = client_of(&address);
            client.sendall(b"hello\n").expect("sendall");
            assert_eq!(line(&client), "HELLO\n");
            client
        };
        let (first, second) = (enter(), enter());
        // No data is sent to it, because unread data at the close could truncate the response.
        let third = client_of(&address);
        assert_eq!(line(&third), "too many clients\n");
        assert_eq!(third.recv(1).expect("recv"), b"");
        server.expect(" refused: too many clients\n");
        // A connection is counted when it has been closed.
        let counted = |expected: &str| {
            let until = std::time::Instant::now() + program::LIMIT;
            loop {
                first.sendall(b"stats\n").expect("sendall");
                let counts = line(&first);
                if counts == expected {
                    return;
                }
                assert!(std::time::Instant::now() < until, "{counts}");
                sock::poll(&mut [], Some(Duration::from_millis(5))).expect("poll");
            }
        };
        counted("3 accepted, 0 finished, 1 rejected, 0 timed out, 2 in flight\n");
        drop(second);
        counted("3 accepted, 1 finished, 1 rejected, 0 timed out, 1 in flight\n");
        let silent = client_of(&address);
        assert_eq!(silent.recv(1).expect("recv"), b"", "too late");
        server.expect(" timed out: first byte\n");
        counted("4 accepted, 1 finished, 1 rejected, 1 timed out, 1 in flight\n");
    }
}

#[test]
fn graceful_shutdown() {
    for &language in languages() {
        for signal in ["TERM", "INT"] {
            let mut server = Program::start(language, "graceful_shutdown", &ANY_PORT);
            let address = server.address();
            let idle = client_of(&address);
            idle.sendall(b"hello\n").expect("sendall");
            assert_eq!(line(&idle), "HELLO\n");
            server.signal(signal);
            assert_eq!(idle.recv(1).expect("recv"), b"", "the idle connection was not closed");
            drop(idle);
            let (output, _) = server.finish_with(0);
            assert!(output.starts_with("listening on 127.0.0.1:SERVER\n"), "{output}");
        }
    }
}
