//! The promise: the keys of log records are those of the table in `docs/operations.md`, with the types
//! that it says, in each model and each of its processes. Records about a client have its address.
//! Only records without data have no key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use log::kv::{self, Key, Value, VisitSource};
use sock::{Address, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, PreforkTCPServer, ProxyProtocol, Request, SelectorTCPServer,
    ServerHooks, Stats, StreamContext, TCPServer, ThreadPoolTCPServer, ThreadingTCPServer, handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to, read_to_end};

pub(crate) const TESTS: &[Test] = &[
    ("log_keys_are_those_of_the_documentation_in_each_model", keys_are_documented),
    ("log_keys_are_those_of_the_documentation_in_prefork_workers", keys_of_workers_are_documented),
    ("log_keys_in_the_source_are_documented", keys_in_the_source_are_documented),
];

const PAGE: &str = include_str!("../../docs/operations.md");

/// The records that have no data, or only the text of a panic or of a parser.
const WITHOUT_DATA: [&str; 3] =
    ["deadlines are watched again", "the deadline thread panicked", "skipping a certificate of the system"];

/// Returns the type of each key of the table.
fn documented() -> BTreeMap<&'static str, &'static str> {
    let (_, section) = PAGE.split_once("\n## Log records\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`'), cells.next()?))
    };
    let table: BTreeMap<_, _> = section.lines().filter_map(row).collect();
    assert!(
        table.len() > 20 && table.values().all(|kind| ["integer", "string"].contains(kind)),
        "{table:?}"
    );
    table
}

/// Appends a line for each record to a file, in whichever process it is logged.
struct ToFile(File);

struct Types(String);

impl<'kvs> VisitSource<'kvs> for Types {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let kind = match () {
            () if value.to_u64().is_some() || value.to_i64().is_some() => "integer",
            () if value.to_string() == "None" => "null",
            () => "string",
        };
        self.0.push_str(&format!("{key}={kind} "));
        Ok(())
    }
}

impl log::Log for ToFile {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut types = Types(String::new());
        record.key_values().visit(&mut types).unwrap();
        let message = record.args().to_string().replace('\n', " ");
        let line = format!("{}\t{}\t{message}\n", record.target(), types.0);
        (&self.0).write_all(line.as_bytes()).unwrap();
    }

    fn flush(&self) {}
}

/// Does what the line says.
fn act(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.rfile.read_line(&mut line)?;
    match line.trim() {
        "fail" => Err(io::Error::from_raw_os_error(28)),
        "panic" => panic!("on purpose"),
        "abort" => std::process::abort(),
        "wait" => cx.request.recv(1).map(drop),
        _ => cx.wfile.write_all(line.as_bytes()),
    }
}

/// Refuses all clients, or fails for them.
struct Refusing {
    panics: bool,
}

impl ServerHooks for Refusing {
    fn verify_request(&self, _: &Request, _: &Address) -> bool {
        assert!(!self.panics, "on purpose");
        false
    }

    fn handle_error(&self, _: &sockserver::RequestError, _: &Address) {
        panic!("on purpose");
    }
}

/// Serves clients that have sent their lines, until all have ended.
fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>, lines: &[&str]) {
    let begin = Instant::now();
    let all = lines.len() as u64;
    let ended = move |stats: &Stats| stats.accepted >= all && stats.in_flight == 0;
    let server = builder
        .request_timeout(0.2)
        .poll_interval(Duration::from_millis(5))
        .service_actions(move |server| {
            if ended(&server.stats()) {
                server.request_shutdown().unwrap();
            }
            assert!(begin.elapsed() < LIMIT, "{:?}", server.stats());
        })
        .bind(LOOPBACK)
        .unwrap();
    let connect = |line: &&str| {
        let client = connect_to(server.server_address());
        client.sendall(format!("{line}\n").as_bytes()).unwrap();
        client
    };
    let clients: Vec<Socket> = lines.iter().map(connect).collect();
    server.serve_forever().unwrap();
    clients.iter().for_each(|client| drop(read_to_end(client)));
    let _ = server.drain(Duration::ZERO).unwrap();
    server.server_close().unwrap();
}

fn each_way<M: MixIn>(make: impl Fn() -> Builder<Stream<Inet>, M>, forks: bool) {
    serve(make(), &["one", "fail", "fail", "panic", "wait"]);
    if forks {
        serve(make(), &["abort"]);
    }
    serve(make().max_connections_per_ip(0), &["full"]);
    serve(make().deny(["127.0.0.1"]), &["denied"]);
    serve(make().accept_rate_per_address(1, 1), &["one", "two", "three"]);
    serve(make().proxy_protocol(ProxyProtocol::from_networks(["127.0.0.1"]).unwrap()), &["forged"]);
    for panics in [false, true] {
        serve(make().hooks(Refusing { panics }), &["verify"]);
    }
}

/// Logs what `act` causes to a file, and checks its records. Returns the keys.
fn keys_of(act: impl FnOnce()) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let file = File::options().create(true).append(true).open(&path).unwrap();
    log::set_boxed_logger(Box::new(ToFile(file))).unwrap();
    // The trace of system calls has a line for each call.
    log::set_max_level(log::LevelFilter::Debug);
    act();
    log::set_max_level(log::LevelFilter::Trace);
    let (ours, _theirs) = sock::socketpair().unwrap();
    ours.sendall(b"data").unwrap();
    log::set_max_level(log::LevelFilter::Off);

    let (documented, mut seen) = (documented(), BTreeSet::new());
    let text = std::fs::read_to_string(&path).unwrap();
    for line in text.lines() {
        let [target, pairs, message] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(!message.is_empty(), "{line}");
        let pairs: BTreeMap<_, _> =
            pairs.split_whitespace().map(|pair| pair.split_once('=').unwrap()).collect();
        for (key, kind) in &pairs {
            let expected = documented.get(key).unwrap_or_else(|| panic!("{key} is not documented: {line}"));
            let is_expected = kind == expected || *kind == "null";
            assert!(is_expected, "{key} has another type: {line}");
            seen.insert((*key).to_owned());
        }
        let names_client = target.starts_with("sockserver") && message.contains("127.0.0.1:");
        let names = ["peer", "listener", "aborted"].iter().any(|key| pairs.contains_key(key));
        assert!(!names_client || names, "the address has no key: {line}");
    }
    seen
}

fn assert_seen(seen: &BTreeSet<String>, keys: &[&str]) {
    let missing: Vec<_> = keys.iter().filter(|key| !seen.contains(**key)).collect();
    assert!(missing.is_empty(), "{missing:?} are in no record: {seen:?}");
}

const OF_REQUESTS: [&str; 15] = [
    "accepted", "call", "data", "deadline", "errno", "fd", "finished", "hook", "limit_ms", "listener",
    "outcome", "peer", "reason", "request", "us",
];

fn keys_are_documented() {
    let seen = keys_of(|| {
        // The models that fork come first, while this process has one thread.
        each_way(|| ForkingTCPServer::builder(handler_fn(act)), true);
        each_way(|| PreforkTCPServer::builder(handler_fn(act)).workers(2), true);
        each_way(|| TCPServer::builder(handler_fn(act)), false);
        each_way(|| ThreadingTCPServer::builder(handler_fn(act)), false);
        each_way(|| ThreadPoolTCPServer::builder(handler_fn(act)).workers(2), false);
        each_way(|| SelectorTCPServer::builder(handler_fn(act)).workers(2), false);
    });
    assert_seen(&seen, &OF_REQUESTS);
    assert_seen(
        &seen,
        &["aborted", "elapsed_ms", "idle", "pid", "signal", "status", "still_running", "suppressed"],
    );
}

/// Each class of workers is a run of this test.
fn keys_of_workers_are_documented() {
    let seen = keys_of(|| {
        let class = crate::worker_class();
        each_way(|| PreforkTCPServer::builder(handler_fn(act)).workers(2).worker_class(class), true);
    });
    assert_seen(&seen, &OF_REQUESTS);
    assert_seen(&seen, &["pid", "signal"]);
}

/// Returns the text of all files of a folder.
fn sources(folder: &Path, text: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

/// Records of faults that the other test does not provoke.
fn keys_in_the_source_are_documented() {
    let documented = documented();
    let mut files = Vec::new();
    for name in ["sock", "sockserver", "sockssl"] {
        sources(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(name).join("src"),
            &mut files,
        );
    }
    let (mut found, mut without) = (BTreeSet::new(), Vec::new());
    let macros =
        ["log::error!(", "log::warn!(", "log::info!(", "log::debug!(", "log::log!(", "log_limited!("];
    for (file, start) in files.iter().flat_map(|file| macros.map(|start| (file, start))) {
        for call in file.split(start).skip(1) {
            // The message is the first string of a call without pairs.
            let (before, message) = call.split_once('"').unwrap();
            if !before.contains('=') {
                without.push(message.lines().next().unwrap());
            }
            // The pairs end with a semicolon, which a call without pairs has behind its message.
            let pairs = call.split(';').next().unwrap();
            for pair in pairs.split(',') {
                let Some((key, _)) = pair.split_once(" = ") else { continue };
                let key = key.trim().trim_end_matches(":%").trim_end_matches(":?");
                if key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                    assert!(documented.contains_key(key), "{key} is not documented: {pairs}");
                    found.insert(key.to_owned());
                }
            }
        }
    }
    assert!(found.len() > 20, "{found:?}");
    without.retain(|call| !WITHOUT_DATA.iter().any(|start| call.starts_with(start)));
    assert_eq!(without, [""; 0], "these records have no key");
    // These are written by other macros.
    let others = ["call", "data", "fd", "hint", "ret", "scenario", "suppressed", "tid", "us"];
    let unused: Vec<_> =
        documented.keys().filter(|key| !found.contains(**key) && !others.contains(key)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}
