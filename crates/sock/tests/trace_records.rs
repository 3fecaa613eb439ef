//! The promise: each call is one record with key-values, and with entry records a call that blocks
//! shows before it returns.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use sock::{AF_INET, SOCK_STREAM, Socket, create_server};

/// A record: target, text, key-values.
struct Logged {
    target: String,
    text: String,
    fields: HashMap<String, String>,
}

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
        let mut fields = HashMap::new();
        record.key_values().visit(&mut Collect(&mut fields)).unwrap();
        let logged = Logged { target: record.target().into(), text: record.args().to_string(), fields };
        // After the test nothing receives it.
        let _ = RECORDS.get().unwrap().lock().unwrap().send(logged);
    }

    fn flush(&self) {}
}

/// The next record of a call.
fn next(records: &Receiver<Logged>, call: &str) -> Logged {
    loop {
        let logged = records.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("no {call}"));
        if logged.fields["call"] == call {
            return logged;
        }
    }
}

/// One test, since there is one logger.
#[test]
fn calls_have_key_values_and_show_before_they_return() {
    let (sender, records) = mpsc::channel();
    assert!(RECORDS.set(Mutex::new(sender)).is_ok());
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(LevelFilter::Trace);

    let server = create_server(("127.0.0.1", 0)).unwrap();
    let (fd, address) = (server.fileno().to_string(), server.getsockname().unwrap());
    let socket = next(&records, "socket");
    assert_eq!((&socket.target[..], &socket.fields["ret"]), ("sock::call", &fd));
    assert!(!socket.fields.contains_key("fd") && !socket.fields.contains_key("errno"));
    let listen = next(&records, "listen");
    assert_eq!((&listen.fields["fd"], &listen.fields["ret"][..]), (&fd, "0"));
    listen.fields["us"].parse::<u64>().unwrap();

    let refused = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    refused.connect(("127.0.0.1", 1)).unwrap_err();
    let connect = next(&records, "connect");
    assert_eq!((&connect.fields["ret"][..], &connect.fields["errno"][..]), ("-1", "ECONNREFUSED"));
    assert!(connect.text.contains(" = -1 ECONNREFUSED ("), "{}", connect.text);

    sock::set_entry_records(true);
    let accepting = thread::spawn(move || server.accept().unwrap());
    let entry = next(&records, "accept");
    assert_eq!((&entry.target[..], &entry.text), ("sock::enter", &format!("accept({fd})")));
    assert_eq!((&entry.fields["fd"], entry.fields.len()), (&fd, 2));
    assert!(!accepting.is_finished());

    let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    client.connect(address).unwrap();
    accepting.join().unwrap();
    let accept = loop {
        let accept = next(&records, "accept");
        if accept.target == "sock::call" {
            break accept;
        }
    };
    assert!(accept.fields["ret"].parse::<i32>().unwrap() > 2, "{}", accept.text);
    sock::set_entry_records(false);
    client.sendall(b"hello").unwrap();
    let send = next(&records, "send");
    assert_eq!((&send.target[..], &send.fields["ret"][..]), ("sock::call", "5"));
}
