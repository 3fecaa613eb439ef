//! The service: probes in each step of a stop, reload, the PROXY protocol, and systemd.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use sock::Socket;

use crate::program::{self, Directory, LIMIT, Language, Program, Terminal, languages};

const MODELS: [&str; 6] = ["tcp", "threading", "pool", "selector", "forking", "prefork"];

/// The models that keep connections open between requests.
const KEEPING: [&str; 5] = ["threading", "pool", "selector", "forking", "prefork"];

/// The languages and models of the program.
fn variants() -> Vec<(Language, &'static str)> {
    let has = |language: &Language, model: &&str| {
        *language == Language::Rust || ["tcp", "threading"].contains(model)
    };
    let all = languages().iter().flat_map(|&language| MODELS.map(|model| (language, model)));
    all.filter(|(language, model)| has(language, model)).collect()
}

fn connect(address: &[String; 2]) -> Socket {
    let port: u16 = address[1].parse().expect("a port");
    let client = sock::create_connection((address[0].as_str(), port)).expect("connect");
    client.settimeout(LIMIT).expect("settimeout");
    client
}

/// Sends a request, and returns its status, whether the connection may be used again, and the body.
fn ask_on(client: &Socket, path: &str) -> (u32, bool, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    client.sendall(request.as_bytes()).expect("sendall");
    read_answer(client)
}

fn read_answer(client: &Socket) -> (u32, bool, String) {
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let field = |name: &str| {
                let line = head.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_else(|| panic!("no {name} in {head}")).trim().to_owned()
            };
            if body.len() == field("Content-Length:").parse::<usize>().expect("a length") {
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                let is_kept = field("Connection:") == "keep-alive";
                return (status.expect("a status"), is_kept, body.to_owned());
            }
        }
        let data = client.recv(65536).expect("recv");
        assert!(!data.is_empty(), "the answer ends early: {}", String::from_utf8_lossy(&answer));
        answer.extend(data);
    }
}

pub(crate) fn ask(address: &[String; 2], path: &str) -> (u32, bool, String) {
    ask_on(&connect(address), path)
}

fn expect_end(client: &Socket) {
    assert_eq!(client.recv(1).expect("recv"), b"", "the connection is not closed");
}

#[test]
fn service_is_not_ready_in_the_lame_duck() {
    for (language, model) in variants() {
        println!("{language:?} {model}");
        // The lame duck lasts until the second signal.
        let mut server = Program::start(language, "service", &["127.0.0.1", "0", model, "600"]);
        let address = server.address();
        server.expect(": Ready\n");
        let keeps = KEEPING.contains(&model);
        let ready = "Ready\n".to_owned();
        assert_eq!(ask(&address, "/ready"), (200, keeps, ready.clone()));
        assert_eq!(ask(&address, "/live"), (200, keeps, ready));
        assert_eq!(ask(&address, "/nothing").0, 404);
        // One that is open when the stop begins.
        let kept = keeps.then(|| connect(&address));
        if let Some(kept) = &kept {
            assert!(ask_on(kept, "/").1);
        }

        server.signal("TERM");
        server.expect(": LameDuck\n");
        let lame_duck = "LameDuck\n".to_owned();
        if let Some(kept) = &kept {
            assert_eq!(ask_on(kept, "/ready"), (503, false, lame_duck.clone()));
            expect_end(kept);
        }
        // Clients are served as before, on connections that end.
        let client = connect(&address);
        assert_eq!(ask_on(&client, "/ready"), (503, false, lame_duck.clone()));
        expect_end(&client);
        assert_eq!(ask(&address, "/live"), (200, false, lame_duck));
        let (status, is_kept, page) = ask(&address, "/");
        assert_eq!((status, is_kept, page.is_empty()), (200, false, false));
        let (status, _, metrics) = ask(&address, "/metrics");
        assert!(status == 200 && metrics.ends_with("# EOF\n"), "{metrics}");

        server.signal("INT");
        server.expect(": Stopped\n");
        let (output, _) = server.finish_with(0);
        let last = output.lines().last().unwrap_or("");
        assert!(last.contains(" accepted"), "{output}");
        assert!(language == Language::Python || last.contains(", 0 failed, 0 disconnected"), "{output}");
    }
}

#[test]
fn service_reloads_its_page_on_sighup() {
    let directory = Directory::new("service");
    for (language, model) in variants() {
        println!("{language:?} {model}");
        let page = directory.join("page");
        fs::write(&page, "one\n").expect("write");
        let page = page.to_str().expect("UTF-8");
        let mut server = Program::start(language, "service", &["127.0.0.1", "0", model, "0", "off", page]);
        let address = server.address();
        assert_eq!(ask(&address, "/").2, "one\n");
        fs::write(page, "two\n").expect("write");
        server.signal("HUP");
        server.expect(" is loaded\n");
        // Workers that are about to be replaced still have the old one.
        let wait_for_page = || {
            let until = Instant::now() + LIMIT;
            while ask(&address, "/").2 != "two\n" {
                assert!(Instant::now() < until, "{model}: the old page is served");
            }
        };
        wait_for_page();
        fs::remove_file(page).expect("remove");
        server.signal("HUP");
        if model != "prefork" {
            server.expect("not loaded: ");
        }
        wait_for_page();
        server.signal("TERM");
        server.finish_with(0);
    }
}

#[test]
fn service_requires_the_header_of_a_balancer() {
    for &language in languages() {
        let arguments = ["127.0.0.1", "0", "threading", "0", "127.0.0.0/8"];
        let mut server = Program::start(language, "service", &arguments);
        let address = server.address();
        let client = connect(&address);
        client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").expect("sendall");
        assert_eq!(ask_on(&client, "/ready").0, 200);
        let forger = connect(&address);
        forger.sendall(b"GET /ready HTTP/1.1\r\nHost: test\r\n\r\n").expect("sendall");
        assert!(forger.recv(1).is_ok_and(|data| data.is_empty()) || forger.recv(1).is_err());
        drop((client, forger));
        server.signal("TERM");
        server.finish_with(0);
    }
}

#[test]
fn service_is_started_by_systemd_with_its_socket() {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        let required = std::env::var_os("SOCK_REQUIRE_PEERS").is_some_and(|value| value == "1");
        assert!(!required, "SOCK_REQUIRE_PEERS=1 is set, but systemd-socket-activate is not on PATH");
        program::print_uncaptured("systemd-socket-activate is not on PATH: THE SERVICE IS NOT ACTIVATED");
        return;
    }
    let directory = Directory::new("activated");
    for model in ["threading", "prefork"] {
        let path = directory.join(model);
        let manager = UnixDatagram::bind(&path).expect("bind");
        manager.set_read_timeout(Some(LIMIT)).expect("set_read_timeout");
        let next = || {
            let mut message = [0; 1000];
            let length = manager.recv(&mut message).expect("a message to the service manager");
            String::from_utf8_lossy(&message[..length]).into_owned()
        };
        let port = {
            let free = sock::create_server(("127.0.0.1", 0)).expect("a free port");
            free.getsockname().expect("its address").port().expect("a port").to_string()
        };
        let mut command = Command::new("systemd-socket-activate");
        let variable = format!("NOTIFY_SOCKET={}", path.to_str().expect("UTF-8"));
        command.args(["-l", &format!("127.0.0.1:{port}"), "-E", &variable]);
        // HOST and PORT are not used.
        command.arg(program::example("service")).args(["127.0.0.1", "1", model, "0"]);
        let mut server = Program::spawn(Terminal::Pipe, command, "service".into(), port.clone());
        let address = ["127.0.0.1".to_owned(), port.clone()];
        let until = Instant::now() + LIMIT;
        let client = loop {
            match sock::create_connection(("127.0.0.1", port.parse::<u16>().expect("a port"))) {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        client.settimeout(LIMIT).expect("settimeout");
        assert_eq!(ask_on(&client, "/ready").0, 200);
        assert_eq!(server.address(), address);
        assert_eq!(next(), "READY=1\n");
        drop(client);
        server.signal("TERM");
        assert_eq!(next(), "STOPPING=1\n");
        server.finish_with(0);
    }
}
