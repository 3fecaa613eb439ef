//! The promise of `HoldRecords`, for `sockserver`: while it exists the logger is not called for the
//! calls and hints of this thread. Their records follow in their order.

use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};
use sock::{AF_INET, HoldRecords, SOCK_STREAM, Socket, socketpair};

struct Recorder;

static CALLS: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Log for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        CALLS.lock().unwrap().push(format!("enabled {}", metadata.target()));
        metadata.target().starts_with("sock::")
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        let (call, _) = text.split_once(['(', ' ']).unwrap();
        CALLS.lock().unwrap().push(format!("{} {call}", record.target()));
    }

    fn flush(&self) {}
}

fn take() -> Vec<String> {
    std::mem::take(&mut *CALLS.lock().unwrap())
}

fn records() -> Vec<String> {
    take().into_iter().filter(|call| !call.starts_with("enabled ")).collect()
}

/// One test, since there is one logger.
#[test]
fn records_are_logged_when_the_outermost_hold_ends() {
    assert!(HoldRecords::begin().is_none());
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let (ours, theirs) = socketpair().unwrap();
    drop(ours);
    take();

    let outer = HoldRecords::begin();
    take();
    let inner = HoldRecords::begin();
    drop(Socket::new(AF_INET, SOCK_STREAM, 0).unwrap());
    drop(inner);
    // Three ends of file cause a hint.
    (0..3).for_each(|_| assert_eq!(theirs.recv(1).unwrap(), b""));
    sock::set_entry_records(true);
    theirs.getsockname().unwrap();
    sock::set_entry_records(false);
    std::thread::spawn(|| drop(Socket::new(AF_INET, SOCK_STREAM, 0).unwrap())).join().unwrap();
    // Another thread holds nothing.
    assert_eq!(records(), ["sock::call socket", "sock::call close"]);
    theirs.getsockname().unwrap();
    assert_eq!(take(), [""; 0], "the logger is called");
    drop(outer);
    let expected = [
        "sock::call socket",
        "sock::call close",
        "sock::call recv",
        "sock::call recv",
        "sock::call recv",
        "sock::hint recv",
        "sock::enter getsockname",
        "sock::call getsockname",
        "sock::call getsockname",
    ];
    assert_eq!(records(), expected);

    theirs.getsockname().unwrap();
    assert_eq!(records(), ["sock::call getsockname"]);
}
