//! The promises of the server of lessons: which requests it refuses, that a page resumes where it
//! was, and that nothing grows or stays without a limit.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// A scenario without a wire, so that it runs everywhere.
const LESSON: &str = "# A lesson.
S = A.socket(AF_INET, SOCK_DGRAM)
S.bind((\"127.0.0.1\", 0))
expect S.state == UNCONNECTED
S.recv(1) &
S.getsockname()
S.close()
";

struct Server {
    child: Child,
    port: u16,
    token: String,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A server whose first lesson has this text and has been started.
fn serve_text(text: &str, options: &[&str]) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lesson.scn");
    fs::write(&file, text).unwrap();
    let temporary = folder.path().join("temporary");
    fs::create_dir(&temporary).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_socklens"))
        .args(["serve", "--port", "0", file.to_str().unwrap()])
        .args(options)
        .env("TMPDIR", temporary)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let address = output.lines().map(Result::unwrap).find(|line| line.contains("http://")).unwrap();
    let (_, rest) = address.split_once("http://127.0.0.1:").unwrap();
    let (port, token) = rest.split_once("/?token=").unwrap();
    let (port, token) = (port.parse().unwrap(), token.to_owned());
    Server { child, port, token, folder }
}

fn serve() -> Server {
    serve_text(LESSON, &[])
}

struct Answer {
    status: u16,
    head: String,
    /// Empty if it is not UTF-8.
    body: String,
    bytes: Vec<u8>,
}

impl Server {
    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        BufReader::new(stream)
    }

    fn ask(&self, request: &str) -> Answer {
        let mut connection = self.connect();
        exchange(&mut connection, request)
    }

    /// A request with a host and these headers.
    fn request(&self, line: &str, headers: &str) -> Answer {
        self.ask(&format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{headers}\r\n", self.port))
    }

    fn post(&self, path: &str) -> u16 {
        self.request(&format!("POST {path}"), &format!("X-Socklens-Token: {}\r\n", self.token)).status
    }

    /// The stream of events, behind its head.
    fn events(&self, last: &str) -> Events {
        let mut connection = self.connect();
        let last = if last.is_empty() { String::new() } else { format!("Last-Event-ID: {last}\r\n") };
        let request = format!(
            "GET /events?token={} HTTP/1.1\r\nHost: localhost:{}\r\n{last}\r\n",
            self.token, self.port
        );
        connection.get_mut().write_all(request.as_bytes()).unwrap();
        let (status, head) = read_head(&mut connection);
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        Events(connection)
    }
}

fn read_head(connection: &mut BufReader<TcpStream>) -> (u16, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(connection.read_line(&mut head).unwrap() > 0, "the connection was closed after {head:?}");
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase())
}

fn exchange(connection: &mut BufReader<TcpStream>, request: &str) -> Answer {
    connection.get_mut().write_all(request.as_bytes()).unwrap();
    let (status, head) = read_head(connection);
    let length = head
        .split_once("content-length: ")
        .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
    let mut bytes = vec![0; length];
    connection.read_exact(&mut bytes).unwrap();
    let body = String::from_utf8(bytes.clone()).unwrap_or_default();
    Answer { status, head, body, bytes }
}

struct Events(BufReader<TcpStream>);

/// An event: its name, its identity and its data.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    name: String,
    id: String,
    data: String,
}

impl Events {
    fn next(&mut self) -> Event {
        let mut event = Event { name: String::new(), id: String::new(), data: String::new() };
        let end = Instant::now() + LIMIT;
        loop {
            // Heartbeats have no limit.
            assert!(Instant::now() < end, "no event in {LIMIT:?}");
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
            match line.trim_end().split_once(": ") {
                Some(("event", name)) => event.name = name.to_owned(),
                Some(("id", id)) => event.id = id.to_owned(),
                Some(("data", data)) => event.data = data.to_owned(),
                _ if line == "\n" && !event.data.is_empty() => return event,
                _ => {}
            }
        }
    }

    /// The events up to the one whose data contain a text.
    fn until(&mut self, text: &str) -> Vec<Event> {
        let mut events = Vec::new();
        let end = Instant::now() + LIMIT;
        loop {
            events.push(self.next());
            if events.last().unwrap().data.contains(text) {
                return events;
            }
            assert!(Instant::now() < end, "no {text} in {events:?}");
        }
    }
}

#[test]
fn only_the_token_opens_the_page() {
    let server = serve();
    let page = server.request(&format!("GET /?token={}", server.token), "");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("\"mode\":\"live\"") && page.body.contains("lesson.scn"));
    for header in [
        "content-security-policy: default-src 'none'; script-src 'nonce-",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
    ] {
        assert!(page.head.contains(header), "{header} is missing in {}", page.head);
    }
    let (_, nonce) = page.head.split_once("'nonce-").unwrap();
    let nonce = nonce.split('\'').next().unwrap();
    assert!(page.body.contains(&format!("<script nonce=\"{nonce}\">")));

    let mut flipped = server.token.clone();
    let last = flipped.pop().unwrap();
    flipped.push(if last == '0' { '1' } else { '0' });
    for wrong in ["", &flipped, &server.token[1..], &format!("{}0", server.token)] {
        for path in ["/", "/events", "/step"].into_iter().chain([
            "/session.jsonl",
            "/session.html",
            "/session.pcapng",
            "/session.py",
            "/session.c",
        ]) {
            let answer = server.request(&format!("GET {path}?token={wrong}"), "");
            assert_eq!(answer.status, 403, "{path} with the token {wrong:?}");
            assert!(!answer.body.contains(&server.token) && !answer.head.contains(&server.token));
        }
    }
    assert_eq!(server.request("GET /", "").status, 403);
}

#[test]
fn a_foreign_host_or_origin_is_refused_also_with_the_token() {
    let server = serve();
    let (port, token) = (server.port, &server.token);
    let line = format!("GET /?token={token}");
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        "127.0.0.1".to_owned(),
        format!("127.0.0.1:{}", port.wrapping_add(1)),
        format!("127.0.0.1:{port}@evil.example"),
    ] {
        let answer = server.ask(&format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(answer.status, 403, "{host}");
    }
    assert_eq!(server.ask(&format!("{line} HTTP/1.1\r\n\r\n")).status, 403, "no host");
    assert_eq!(server.ask(&format!("{line} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n")).status, 200);
    let command = |origin: &str| {
        let headers = format!("X-Socklens-Token: {token}\r\nOrigin: {origin}\r\n");
        server.request("POST /step", &headers).status
    };
    for origin in ["http://evil.example", "null", "https://127.0.0.1", &format!("https://127.0.0.1:{port}")]
    {
        assert_eq!(command(origin), 403, "{origin}");
    }
    assert_eq!(command(&format!("http://127.0.0.1:{port}")), 204);
    // Any site can send a form, but none can set a header.
    assert_eq!(server.request(&format!("POST /step?token={token}"), "").status, 403);
}

#[test]
fn a_lesson_runs_line_by_line_and_can_be_saved() {
    let server = serve();
    let mut events = server.events("");
    assert_eq!(events.next().name, "run");
    let first = events.until("\"next\":2");
    assert!(first[0].data.starts_with("{\"k\":\"meta\",\"v\":1"), "{first:?}");
    assert_eq!(server.post("/step"), 204);
    assert!(events.until("\"next\":3").iter().any(|event| event.data.contains("\"fn\":\"socket\"")));
    // The expectation belongs to the step before it.
    assert_eq!(server.post("/step"), 204);
    assert!(events.until("\"next\":5").iter().any(|event| event.data.contains("\"k\":\"expect\"")));
    assert_eq!(server.post("/until/6"), 204);
    let blocked = events.until("\"next\":6");
    assert!(blocked.iter().any(|event| event.data.contains("\"text\":\"blocks\"")), "{blocked:?}");
    assert_eq!(server.post("/run"), 204);
    events.until("\"next\":null");
    let recording = server.request(&format!("GET /session.jsonl?token={}", server.token), "").body;
    assert!(recording.lines().count() > 20, "{recording}");
    let page = server.request(&format!("GET /session.html?token={}", server.token), "").body;
    assert!(page.contains("\"mode\":\"replay\"") && page.contains("connect-src 'none'"));
    assert!(!page.contains(&server.token), "the token is in the saved page");
    for (extension, call) in [
        ("py", "S.getsockname()"),
        ("rs", "S.getsockname()"),
        ("c", "print_name(S, 0)"),
        ("strace", "getsockname(3, "),
    ] {
        let program = server.request(&format!("GET /session.{extension}?token={}", server.token), "");
        assert_eq!(program.status, 200);
        assert!(program.body.contains(call), "{}", program.body);
    }
    let unknown = server.request(&format!("GET /session.java?token={}", server.token), "");
    assert_eq!(unknown.status, 404);
}

/// On loopback there is no wire, and the file has no packets.
#[test]
fn packets_of_a_lesson_can_be_saved_for_wireshark() {
    let text = "S = B.socket(AF_INET, SOCK_DGRAM)
S.bind((\"10.0.0.2\", 5353))
C = A.socket(AF_INET, SOCK_DGRAM)
C.sendto(b\"x\", (\"10.0.0.2\", 5353))
S.recv(1) -> b\"x\" within 15s
";
    let server = serve_text(text, &[]);
    let mut events = server.events("");
    events.until("\"next\":1");
    assert_eq!(server.post("/run"), 204);
    events.until("\"next\":null");
    let saved = |extension: &str| {
        let answer = server.request(&format!("GET /session.{extension}?token={}", server.token), "");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    };
    let recording = saved("jsonl").body;
    let packets = recording.matches("\"k\":\"pkt\"").count();
    let is_loopback = recording.contains("\"tier\":\"loopback\"");
    assert!(!is_loopback || std::env::var_os("SOCK_REQUIRE_LENS").is_none(), "{recording}");
    assert_eq!(packets, usize::from(!is_loopback), "{recording}");
    let file = saved("pcapng");
    assert!(file.head.contains("content-type: application/x-pcapng"), "{}", file.head);
    assert!(file.bytes.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]), "{:?}", file.bytes);
    let comment = b"passed: UDP      len 1";
    let comments = file.bytes.windows(comment.len()).filter(|window| window == comment).count();
    assert_eq!(comments, packets, "{:?}", file.bytes);
}

#[test]
fn a_page_resumes_behind_the_last_event_it_has() {
    let server = serve();
    let mut whole = server.events("");
    whole.next();
    server.post("/run");
    let all = whole.until("\"next\":null");
    for place in [0, 1, all.len() / 2, all.len() - 2] {
        let mut resumed = server.events(&all[place].id);
        let rest: Vec<_> = (place + 1..all.len()).map(|_| resumed.next()).collect();
        assert_eq!(rest, all[place + 1..], "after {}", all[place].id);
    }
    // After a reset the identity belongs to a run that has ended.
    server.post("/reset");
    for last in [all[3].id.as_str(), "999-0", "nonsense", "18446744073709551615-18446744073709551615"] {
        let mut fresh = server.events(last);
        assert_eq!(fresh.next().name, "run", "{last}");
        assert!(fresh.next().id.ends_with("-0"), "{last}");
    }
    // An identity beyond the end begins again, too.
    let run = server.events("").until("\"k\":\"meta\"").pop().unwrap().id;
    let beyond = run.replace("-0", "-100000");
    assert_eq!(server.events(&beyond).next().name, "run");
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let server = serve();
    let mut connection = server.connect();
    let request = format!(
        "POST /step HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nX-Socklens-Token: {}\r\nContent-Length: 0\r\n\r\n",
        server.port, server.token
    );
    for _ in 0..3 {
        assert_eq!(exchange(&mut connection, &request).status, 204);
    }
}

#[test]
fn requests_that_are_too_large_or_unknown_are_refused() {
    let server = serve();
    let token = format!("X-Socklens-Token: {}\r\n", server.token);
    let status = |line: &str, headers: &str| server.request(line, &format!("{token}{headers}")).status;
    assert_eq!(status("POST /step", "Content-Length: 5\r\n"), 413);
    assert_eq!(status("POST /step", "Transfer-Encoding: chunked\r\n"), 413);
    assert_eq!(status("GET /", &format!("X: {}\r\n", "x".repeat(9000))), 431);
    assert_eq!(status("GET /step", ""), 405);
    assert_eq!(status("PUT /step", ""), 405);
    assert_eq!(status("GET /etc/passwd", ""), 404);
    assert_eq!(status("GET /../Cargo.toml", ""), 404);
    for path in
        ["/line", "/lesson/9999", "/lesson/99999999999", "/lesson/..", "/packet/x/drop", "/until/-1"]
    {
        assert!([400, 404].contains(&status(&format!("POST {path}"), "")), "{path}");
    }
    assert_eq!(server.ask("nonsense\r\n\r\n").status, 400);
}

#[test]
fn pages_and_recordings_have_limits() {
    let server = serve_text(LESSON, &["--max-recording", "1500"]);
    let open: Vec<_> = (0..8).map(|_| server.events("")).collect();
    let request = format!("GET /events?token={}", server.token);
    assert_eq!(server.request(&request, "").status, 503);
    drop(open);
    // Also without an event, as when a page is loaded again and again.
    for _ in 0..20 {
        server.events("").next();
    }
    let mut events = server.events("");
    server.post("/run");
    events.until("has reached its limit of 1500 bytes");
    assert_eq!(server.post("/step"), 409, "the lesson has ended");
}

/// Children of a process.
fn children(pid: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut found: Vec<u32> = listed.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    for task in tasks {
        let listed = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(listed.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn a_reset_ends_the_process_of_the_lesson_and_so_does_the_end_of_the_server() {
    let server = serve_text("run A sleep 1000 &\nwait 0.01s\n", &[]);
    let mut last = Vec::new();
    for _ in 0..5 {
        let mut events = server.events("");
        events.until("\"next\":1");
        server.post("/run");
        events.until("\"next\":null");
        let lessons = children(server.child.id());
        assert_eq!(lessons.len(), 1, "{lessons:?}");
        assert_ne!(lessons, last);
        last = lessons;
        server.post("/reset");
    }
    let mut events = server.events("");
    events.until("\"next\":1");
    server.post("/run");
    events.until("\"next\":null");
    let lesson = children(server.child.id())[0];
    let shell = children(lesson);
    assert_eq!(shell.len(), 1, "{shell:?}");
    drop(server);
    let end = Instant::now() + LIMIT;
    for pid in [lesson, shell[0]] {
        let is_gone = || match fs::read_to_string(format!("/proc/{pid}/stat")) {
            // A process that has ended and was not waited for.
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        while !is_gone() {
            assert!(Instant::now() < end, "process {pid} runs after the server has ended");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_lesson_leaves_no_files() {
    let mut server =
        serve_text("S = A.socket(AF_UNIX, SOCK_STREAM)\nS.bind(\"x\")\nS.listen(1)\nS.accept() &\n", &[]);
    let temporary = server.folder.path().join("temporary");
    let files = || fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let wait_until_removed = |made: &[PathBuf]| {
        let end = Instant::now() + LIMIT;
        while made.iter().any(|path| path.exists()) {
            assert!(Instant::now() < end, "{made:?} is left");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let run = |server: &Server| {
        let mut events = server.events("");
        events.until("\"next\":1");
        server.post("/run");
        events.until("\"next\":null");
        let made = files();
        assert_eq!(made.len(), 1, "{made:?}");
        let mode = fs::metadata(&made[0]).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "other users can enter the folder");
        made
    };
    let made = run(&server);
    server.post("/reset");
    wait_until_removed(&made);
    let made = run(&server);
    // No destructor of the server runs.
    server.child.kill().unwrap();
    wait_until_removed(&made);
    assert!(files().is_empty(), "{:?}", files());
}

#[test]
fn a_mistake_in_a_changed_scenario_is_shown_and_does_not_end_the_server() {
    let server = serve();
    let file = server.folder.path().join("lesson.scn");
    fs::write(Path::new(&file), "S = A.socket(AF_INET, SOCK_STREAM)\nS.lisen(1)\n").unwrap();
    let mut events = server.events("");
    server.post("/reset");
    let shown = events.until("\"k\":\"end\"").pop().unwrap();
    assert!(shown.data.contains("line 2: a socket has no function"), "{}", shown.data);
    fs::write(Path::new(&file), LESSON).unwrap();
    server.post("/reset");
    events.until("\"next\":2");
}
