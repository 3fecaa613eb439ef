//! The promise of the trace: a wait of a selector server for its connections is a record like any
//! other call, shows before it returns, and is no hint.
#![cfg(unix)]

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use sockserver::{SelectorTCPServer, handler_fn, testing};

/// Target, text, key-values.
type Logged = (String, String, HashMap<String, String>);

struct Recorder;

static RECORDS: OnceLock<Mutex<Sender<Logged>>> = OnceLock::new();

struct Collect<'a>(&'a mut HashMap<String, String>);

impl<'kvs> VisitSource<'kvs> for Collect<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.insert(key.to_string(), value.to_string());
        Ok(())
    }
}

impl Log for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sock::")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut fields = HashMap::new();
        record.key_values().visit(&mut Collect(&mut fields)).unwrap();
        // After the test nothing receives it.
        let _ = RECORDS.get().unwrap().lock().unwrap().send((
            record.target().into(),
            record.args().to_string(),
            fields,
        ));
    }

    fn flush(&self) {}
}

const NAME: &str = if cfg!(target_os = "linux") { "epoll_wait" } else { "kevent" };

/// The next record of a wait at this target, which is no hint.
fn next_wait(records: &Receiver<Logged>, wanted: &str) -> Logged {
    loop {
        let logged =
            records.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("no {wanted}"));
        let is_wait = logged.1.contains(NAME);
        assert!(!is_wait || logged.0 != "sock::hint", "{}", logged.1);
        if is_wait && logged.0 == wanted {
            return logged;
        }
    }
}

/// One test, since there is one logger.
#[test]
fn a_wait_of_the_selector_has_a_record_and_one_of_its_start() {
    let (sender, records) = mpsc::channel();
    assert!(RECORDS.set(Mutex::new(sender)).is_ok());
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(LevelFilter::Trace);
    sock::set_entry_records(true);

    let handler = handler_fn(|cx| {
        let data = cx.request.recv(100)?;
        cx.request.sendall(&data)
    });
    let server = SelectorTCPServer::builder(handler).workers(1).bind(("127.0.0.1", 0)).unwrap();
    let server = testing::serve(server);
    let (_, text, entry) = next_wait(&records, "sock::enter");
    assert_eq!(entry["call"], NAME, "{text}");
    assert_eq!(text, format!("{NAME}({}, -1)", entry["fd"]));
    assert_eq!(entry["pid"], std::process::id().to_string());
    assert_eq!(entry.contains_key("tid"), cfg!(target_os = "linux"));

    // Longer than a call that is hinted as one that blocks a worker.
    thread::sleep(Duration::from_millis(120));
    let client = server.connect().unwrap();
    client.sendall(b"hello").unwrap();
    assert_eq!(client.recv(100).unwrap(), b"hello");
    let (_, text, end) = next_wait(&records, "sock::call");
    assert!(text.starts_with(&format!("{NAME}({}, -1) = 1 <", entry["fd"])), "{text}");
    assert_eq!((&end["call"][..], &end["fd"], &end["ret"][..]), (NAME, &entry["fd"], "1"));
    assert!(end["us"].parse::<u64>().unwrap() > 0, "{text}");
    assert!(!end.contains_key("errno"), "{text}");
}
