//! The promise: each call is one record with key-values, and with entry records a call that blocks
//! shows before it returns.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use sock::{AF_INET, Linger, POLLIN, Poll, SOCK_STREAM, Socket, create_server};

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
    assert_eq!((&entry.fields["fd"], &entry.fields["pid"]), (&fd, &std::process::id().to_string()));
    assert_eq!(entry.fields.len(), if cfg!(target_os = "linux") { 4 } else { 3 }, "{:?}", entry.fields);
    // The thread that accepts, and not this one.
    assert_ne!(entry.fields.get("tid"), listen.fields.get("tid").or(Some(&String::new())));
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
    assert_eq!(send.fields["data"], "b\"hello\"");

    // The flags are those that the system gets.
    if cfg!(target_os = "linux") {
        assert!(send.text.contains(", 5, MSG_NOSIGNAL) = 5 <"), "{}", send.text);
    }
    client.set_linger(Linger { l_onoff: true, l_linger: 7 }).unwrap();
    let set = next(&records, "setsockopt");
    assert!(set.text.contains("SO_LINGER, {l_onoff=1, l_linger=7}) = 0 <"), "{}", set.text);
    assert_eq!(client.linger().unwrap().l_linger, 7);
    let get = next(&records, "getsockopt");
    assert!(get.text.contains(") = 0, {l_onoff=1, l_linger=7} <"), "{}", get.text);

    let (ours, theirs) = sock::socketpair().unwrap();
    ours.sendall(&[b'x'; 100]).unwrap();
    assert_eq!(sock::poll(&mut [Poll::new(&theirs, POLLIN)], None).unwrap(), 1);
    let polled = next(&records, "poll");
    assert!(polled.text.contains(&format!(" = 1 ({{{}, POLLIN}}) <", theirs.fileno())), "{}", polled.text);
    let first = format!("b\"{}\"...", "x".repeat(32));
    let mut buffer = [0; 40];
    assert_eq!(theirs.recv(40).unwrap().len(), 40);
    assert_eq!(theirs.recv_into(&mut buffer).unwrap(), 40);
    assert_eq!(theirs.recvfrom(15).unwrap().0.len(), 15);
    for data in [&first[..], &first, "b\"xxxxxxxxxxxxxxx\""] {
        let name = if data == first { "recv" } else { "recvfrom" };
        assert_eq!(next(&records, name).fields["data"], data);
    }
    theirs.recv(40).unwrap();
    assert_eq!(next(&records, "recv").fields["data"], "b\"xxxxx\"");
    #[cfg(unix)]
    {
        ours.sendmsg(&[std::io::IoSlice::new(b"one"), std::io::IoSlice::new(b"two")], &[]).unwrap();
        theirs.recvmsg(2, 0).unwrap();
        assert_eq!(next(&records, "sendmsg").fields["data"], "b\"one\"");
        assert_eq!(next(&records, "recvmsg").fields["data"], "b\"on\"");
    }
}
