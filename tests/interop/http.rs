//! The HTTP page: its client, requests of all kinds, and curl.

use std::process::{Command, Stdio};

use sock::SHUT_WR;

use crate::pairings;
use crate::program::{ANY_PORT, LIMIT, Language, Program, Terminal, languages, print_uncaptured};
use crate::rfc9112;

#[test]
fn http_page() {
    let expected = "listening on 127.0.0.1:SERVER\n\
                    127.0.0.1:PORT GET / 200 OK\n\
                    127.0.0.1:PORT GET /favicon.ico 404 Not Found\n";
    pairings(|server, client| {
        let mut server = Program::start(server, "http_page", &ANY_PORT);
        let address = server.address();
        let page = Program::start(client, "http_get", &address).finish();
        assert_eq!(
            page,
            "status: HTTP/1.1 200 OK\n\
             <!doctype html>\n<title>sock</title>\n<h1>Hello, browser!</h1>\n"
        );
        let [host, port] = address;
        let page = Program::start(client, "http_get", &[host, port, "/favicon.ico".into()]).finish();
        assert_eq!(page, "status: HTTP/1.1 404 Not Found\n<h1>404 Not Found</h1>\n");
        assert_eq!(server.stop_after(expected), expected);
    });
}

/// Sends a request as it is, to a server that closes in the end.
fn request(address: &[String; 2], request: &[u8]) -> String {
    let port: u16 = address[1].parse().expect("a port");
    let sock = sock::create_connection((address[0].as_str(), port)).expect("connect");
    sock.settimeout(LIMIT).expect("settimeout");
    sock.sendall(request).expect("sendall");
    sock.shutdown(SHUT_WR).expect("shutdown");
    let mut answer = Vec::new();
    loop {
        let piece = sock.recv(4096).expect("recv");
        if piece.is_empty() {
            return String::from_utf8(answer).expect("an answer in UTF-8");
        }
        answer.extend(piece);
    }
}

#[test]
fn http_page_answers_whatever_is_asked() {
    const HEADERS: &str = "Content-Type: text/html\r\nAllow: GET, HEAD\r\n";
    let page = "<!doctype html>\n<title>sock</title>\n<h1>Hello, browser!</h1>\n";
    let answer = |status: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\n{HEADERS}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let kept = |answer: &String| answer.replace("Connection: close", "Connection: keep-alive");
    let old = answer("200 OK", page);
    let ok = kept(&old);
    let head = ok.replace(page, "");
    let refusal = |status: &str| answer(status, &format!("<h1>{status}</h1>\n"));
    let (bad, missing) = (refusal("400 Bad Request"), kept(&refusal("404 Not Found")));
    let twice = format!("{ok}{old}");
    let not_allowed = refusal("405 Method Not Allowed");
    let endless = "x".repeat(10_000);
    let crowded = format!("GET / HTTP/1.1\r\nx: {endless}\r\n\r\n");

    for &language in languages() {
        let mut server = Program::start(language, "http_page", &ANY_PORT);
        let address = server.address();
        for (asked, expected) in [
            ("GET / HTTP/1.1\r\nHost: here\r\n\r\n", &ok),
            ("GET / HTTP/1.0\n\n", &old),
            (
                "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                &twice,
            ),
            ("GET /?a=b HTTP/1.1\r\nHost: here\r\n\r\n", &ok),
            ("HEAD / HTTP/1.1\r\nHost: here\r\n\r\n", &head),
            ("GET /x HTTP/1.1\r\nHost: here\r\n\r\n", &missing),
            ("POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc", &not_allowed),
            ("POST /x HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n", &not_allowed),
            ("hello\r\n\r\n", &bad),
            ("GET /\r\n\r\n", &bad),
            ("GET / HTTP/2.0\r\n\r\n", &bad),
            ("GET / HTTP/1.1\r\nHost\r\n\r\n", &bad),
            ("GET / HTTP/1.1\r\nHost: here\r\n", &bad),
            (&crowded, &bad),
            (&endless, &bad),
            ("", &String::new()),
            // RFC 9112. 2.2: empty lines before a request; 3.2: exactly one Host.
            ("\r\n\r\nGET / HTTP/1.1\r\nHost: here\r\n\r\n", &ok),
            ("GET / HTTP/1.1\r\n\r\n", &bad),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &bad),
            // 3.2.2: the absolute form.
            ("GET http://here/ HTTP/1.1\r\nHost: here\r\n\r\n", &ok),
            ("GET http://here?a=b HTTP/1.1\r\nHost: here\r\n\r\n", &ok),
            ("GET http://here/x HTTP/1.1\r\nHost: here\r\n\r\n", &missing),
            // 5.1 and 5.2: no space before the colon, no folded line.
            ("GET / HTTP/1.1\r\nHost : here\r\n\r\n", &bad),
            ("GET / HTTP/1.1\r\nHost: here\r\n folded\r\n\r\n", &bad),
            // 6.3: a body is never taken for the next request, and its length is beyond doubt.
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 27\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
                &old,
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", &ok),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &old),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", &bad),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 0\r\n\r\nabc", &bad),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 0\r\n\r\nabc", &bad),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", &bad),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nabc", &bad),
            // 9.6: `close` among other options, in any case.
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\n\r\n", &old),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: CLOSE\r\n\r\n", &old),
        ] {
            let (start, _) = asked.split_at(asked.len().min(60));
            assert_eq!(request(&address, asked.as_bytes()), *expected, "{language:?}: {start:?}");
        }
    }
}

#[test]
fn http_page_and_service_take_no_body_for_a_request() {
    for &language in languages() {
        let models = ["threading", "selector"];
        let models = if language == Language::Rust { &models[..] } else { &models[..1] };
        for program in ["http_page", "service"] {
            for model in models {
                let mut server = Program::start(language, program, &["127.0.0.1", "0", model]);
                let address = server.address();
                for (asked, expected) in rfc9112::REQUESTS {
                    let answers = request(&address, asked.as_bytes());
                    let what = format!("{language:?} {program} {model}: {asked:?}");
                    assert_eq!(rfc9112::statuses(asked, &answers), expected, "{what}: {answers}");
                }
            }
        }
    }
}

/// An answer of 405 has to list the methods (RFC 9110, section 15.5.6).
#[test]
fn service_lists_its_methods() {
    let mut server = Program::start(Language::Rust, "service", &ANY_PORT);
    let answer = request(&server.address(), b"DELETE / HTTP/1.1\r\nHost: here\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{answer}");
    assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
}

/// A model that serves one connection at a time closes it, so that the next client is served.
#[test]
fn http_page_does_not_keep_clients_waiting() {
    for &language in languages() {
        for model in if language == Language::Rust { &["tcp", "prefork"][..] } else { &["tcp"] } {
            let mut server = Program::start(language, "http_page", &["127.0.0.1", "0", model]);
            let port: u16 = server.address()[1].parse().expect("a port");
            // As many as Python's listener holds.
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    let client = sock::create_connection(("127.0.0.1", port)).expect("connect");
                    client.settimeout(LIMIT).expect("settimeout");
                    client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("sendall");
                    client
                })
                .collect();
            for client in clients {
                let mut answer = Vec::new();
                while !answer.ends_with(b"</h1>\n") {
                    let data = client.recv(4096).expect("recv");
                    assert!(!data.is_empty(), "{language:?} {model}: {}", String::from_utf8_lossy(&answer));
                    answer.extend(data);
                }
                assert!(String::from_utf8_lossy(&answer).contains("\r\nConnection: close\r\n"));
            }
        }
    }
}

#[test]
fn http_page_serves_curl() {
    let missing = Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err();
    if missing {
        print_uncaptured("there is no curl on PATH: THE PAGE IS NOT FETCHED WITH IT");
        return;
    }
    for &language in languages() {
        let mut server = Program::start(language, "http_page", &ANY_PORT);
        let url = format!("http://{}/", server.listening_on());
        let curl = |arguments: &[&str], url: &str| {
            let mut command = Command::new("curl");
            // No proxy, whatever the environment of the tests knows about one.
            command.args(["--silent", "--show-error", "--noproxy", "*"]).args(arguments).arg(url);
            Program::spawn(Terminal::Pipe, command, "curl".into(), String::new()).finish()
        };
        let page = curl(&[], &url);
        assert!(page.ends_with("<h1>Hello, browser!</h1>\n"), "{page}");
        let status = ["--output", "-", "--write-out", "%{http_code} %{size_download}"];
        assert!(curl(&status, &url).ends_with("</h1>\n200 61"));
        assert!(curl(&status, &format!("{url}x")).ends_with("</h1>\n404 23"));
        assert!(curl(&[&status[..], &["--data", "x"]].concat(), &url).ends_with("</h1>\n405 32"));
        assert!(curl(&[&status[..], &["--head"]].concat(), &url).ends_with("\n\n200 0"));
    }
}
