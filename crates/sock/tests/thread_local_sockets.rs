//! The promise: at level trace a socket in a thread-local is closed at the end of its thread. There is
//! no thread-local of `sock` any more by then, and a panic would end the process.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use log::{LevelFilter, Log, Metadata, Record};
use sock::{AF_INET, SOCK_STREAM, Socket};

thread_local! {
    static CONNECTION: RefCell<Option<Socket>> = const { RefCell::new(None) };
}

static CLOSED: AtomicUsize = AtomicUsize::new(0);

struct Counter;

impl Log for Counter {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        CLOSED.fetch_add(usize::from(record.args().to_string().starts_with("close(")), Ordering::SeqCst);
    }

    fn flush(&self) {}
}

/// One test, since there is one logger.
#[test]
fn a_socket_in_a_thread_local_is_closed_at_the_end_of_its_thread() {
    log::set_logger(&Counter).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let thread = std::thread::spawn(|| {
        CONNECTION.with_borrow_mut(|connection| {
            *connection = Some(Socket::new(AF_INET, SOCK_STREAM, 0).unwrap());
        });
    });
    thread.join().unwrap();
    assert_eq!(CLOSED.load(Ordering::SeqCst), 1);
}
