//! The promise: an object, its data and the logger may use the selector that calls them, because no
//! code of the program runs while the selector is locked.

#![cfg(unix)]

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use sock::Socket;
use sock::selectors::{DefaultSelector, EVENT_READ, EVENT_WRITE, FileObject};

const LIMIT: Duration = Duration::from_secs(20);

static SELECTOR: OnceLock<DefaultSelector<Object, Data>> = OnceLock::new();

/// Acquires the selector's lock.
fn look() {
    let _ = SELECTOR.get().map(|selector| selector.get_map().len());
}

struct Object(Socket);

impl FileObject for Object {
    fn descriptor(&self) -> BorrowedFd<'_> {
        look();
        self.0.as_fd()
    }

    fn has_buffered_input(&self) -> Option<bool> {
        look();
        Some(false)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        look();
    }
}

struct Data;

impl Drop for Data {
    fn drop(&mut self) {
        look();
    }
}

struct Looking(mpsc::SyncSender<String>);

impl Log for Looking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sock::")
    }

    fn log(&self, record: &Record<'_>) {
        look();
        let _ = self.0.try_send(record.args().to_string());
    }

    fn flush(&self) {}
}

fn use_selector() {
    let selector = SELECTOR.get_or_init(|| DefaultSelector::new().unwrap());
    let (ours, theirs) = sock::socketpair().unwrap();
    let again = Object(ours.dup().unwrap());
    let key = selector.register(Object(ours), EVENT_READ, Data).unwrap();
    selector.modify(&key, EVENT_READ | EVENT_WRITE, Data).unwrap();
    selector.modify(&key, EVENT_READ, Data).unwrap();
    theirs.sendall(b"x").unwrap();
    assert_eq!(selector.select(LIMIT).unwrap().len(), 1);
    selector.canceller().unwrap().cancel();
    selector.register(again, EVENT_READ, Data).unwrap();
    assert_eq!(selector.get_map().len(), 2);
    drop(selector.unregister(&key).unwrap());
    selector.unregister(&key).unwrap_err();
    let keys = selector.get_map().values();
    for key in &keys {
        selector.unregister(key).unwrap();
    }
    // An error drops the object and its data.
    let known = selector.register(Object(theirs.dup().unwrap()), EVENT_READ, Data).unwrap();
    selector.register(Object(theirs), 0, Data).map(drop).unwrap_err();
    selector.unregister(&known).unwrap();
}

/// One test, since there is one logger.
#[test]
fn objects_data_and_loggers_may_use_the_selector() {
    let (sender, lines) = mpsc::sync_channel(1000);
    log::set_logger(Box::leak(Box::new(Looking(sender)))).unwrap();
    for level in [LevelFilter::Off, LevelFilter::Trace] {
        log::set_max_level(level);
        let (done, ended) = mpsc::channel();
        thread::spawn(move || {
            use_selector();
            let _ = done.send(());
        });
        ended.recv_timeout(LIMIT).unwrap_or_else(|error| panic!("{level}: {error}"));
    }
    log::set_max_level(LevelFilter::Off);
    // The records that were held back come in their order, and none is lost.
    #[cfg(target_os = "linux")]
    {
        let lines: Vec<String> = lines.try_iter().filter(|line| line.starts_with("epoll_ctl")).collect();
        let calls: Vec<_> = lines.iter().filter_map(|line| line.split(", ").nth(1)).collect();
        assert_eq!(&calls[..4], ["EPOLL_CTL_ADD", "EPOLL_CTL_MOD", "EPOLL_CTL_MOD", "EPOLL_CTL_ADD"]);
    }
    drop(lines);
}
