//! The promise: `selectors` is Python's module. The cases of CPython's `test_selectors` (3.11), for
//! each selector of this system, and what is different here.
//!
//! | CPython's case | test |
//! | --- | --- |
//! | `test_register` | `register`; a number is no object here, so -10 does not compile |
//! | `test_unregister` | `unregister` |
//! | `test_unregister_after_fd_close`, `…_after_fd_close_and_reuse`, `…_after_socket_close` | cannot happen: a registered object is open. `an_object_is_open_while_it_is_registered`, `a_number_in_use_again_is_another_key` |
//! | `test_modify`, `test_modify_unregister` | `modify`, `modify_unregister` |
//! | `test_close`, `test_context_manager` | `close`; use after close does not compile |
//! | `test_get_key`, `test_get_map` | `get_key`, `get_map`; deleting from the map does not compile |
//! | `test_select`, `test_select_read_write` | `select`, `select_read_write` |
//! | `test_fileno` | `fileno`, of the selector that has one |
//! | `test_selector`, `test_empty_select`, `test_timeout` | `selector`, `empty_select`, `timeout` |
//! | `test_select_interrupt_exc`, `…_noraise`, `test_above_fd_setsize` | in `tests/process_tests/selectors.rs`: they need a process of their own |
//! | `test_register_file` | `register_file` |
//! | `test_register_bad_fd` | cannot happen: an object has an open descriptor |
//! | `test_empty_select_timeout` | `empty_select_timeout` |

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use sock::selectors::EpollSelector;
use sock::selectors::{
    Backend, DefaultSelector, EVENT_READ, EVENT_WRITE, EventMask, FileObject, PollSet, Selector,
    SelectorKey,
};
use sock::{
    Address, ArgumentError, ArgumentFault, BorrowedFd, SHUT_WR, Shutdown, Socket, StreamSocket, socketpair,
    was_cancelled,
};

/// Runs each case with each selector.
macro_rules! cases {
    ($($case:ident)*) => {
        mod poll {
            $(#[test] fn $case() { super::$case::<super::PollSet>(); })*
        }

        #[cfg(target_os = "linux")]
        mod epoll {
            $(#[test] fn $case() { super::$case::<sock::selectors::Epoll>(); })*
        }
    };
}
cases! {
    register unregister modify modify_unregister close get_key get_map select select_read_write selector
    empty_select timeout empty_select_timeout
    an_object_is_open_while_it_is_registered a_number_in_use_again_is_another_key
    a_changing_map_of_sockets a_result_may_unregister_what_is_behind_it
    it_is_level_triggered an_end_and_an_error_are_events
    buffered_input_is_ready buffered_input_and_the_systems_are_one_event
    a_cancelled_wait_fails_and_what_is_ready_is_reported another_thread_may_register
    a_timeout_has_the_forms_of_settimeout
}

#[track_caller]
fn assert_kind<T: Debug>(result: io::Result<T>, kind: ErrorKind, text: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

fn register<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, _wr) = socketpair().unwrap();
    let key: SelectorKey<_, _> = s.register(&rd, EVENT_READ, "data").unwrap();
    assert_eq!(key.fileobj.fileno(), rd.fileno());
    assert_eq!((key.fd, key.events, *key.data), (rd.fileno(), EVENT_READ, "data"));

    for unknown in [0, 4, 999_999] {
        let error = s.register(&rd, unknown, "data").unwrap_err();
        assert_eq!(error.to_string(), format!("Invalid events: {unknown}"));
        assert_eq!(ArgumentError::of(&error).unwrap().fault(), ArgumentFault::Value);
    }

    // Twice, and the same descriptor with another object.
    assert_kind(s.register(&rd, EVENT_READ, "data"), ErrorKind::AlreadyExists, "is already registered");
    assert_eq!(s.get_map().len(), 1);
}

fn unregister<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, wr) = socketpair().unwrap();
    let key = s.register(&rd, EVENT_READ, ()).unwrap();
    assert_eq!(s.unregister(&rd).unwrap(), key);
    // An unknown object, and the same one twice.
    assert_kind(s.unregister(&wr), ErrorKind::NotFound, "is not registered");
    assert_kind(s.unregister(&rd), ErrorKind::NotFound, "is not registered");
    // By its key.
    let key = s.register(&rd, EVENT_READ, ()).unwrap();
    s.unregister(&key).unwrap();
    assert!(s.get_map().is_empty());
}

fn modify<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, wr) = socketpair().unwrap();

    let key = s.register(&rd, EVENT_READ, "").unwrap();
    assert!(s.select(0).unwrap().is_empty());
    let key2 = s.modify(&rd, EVENT_WRITE, "").unwrap();
    assert_ne!(key.events, key2.events);
    assert_eq!(key2, s.get_key(&rd).unwrap());
    assert_eq!(s.select(0).unwrap(), [(key2, EVENT_WRITE)]);
    s.unregister(&rd).unwrap();

    let key = s.register(&rd, EVENT_READ, "d1").unwrap();
    let key2 = s.modify(&rd, EVENT_READ, "d2").unwrap();
    assert_eq!(key.events, key2.events);
    assert_ne!(key.data, key2.data);
    assert_eq!(key2, s.get_key(&rd).unwrap());
    assert_eq!(*key2.data, "d2");
    let key3 = s.modify(&rd, EVENT_READ, key2.data.clone()).unwrap();
    assert_eq!(key3, key2);

    assert_kind(s.modify(&wr, EVENT_READ, ""), ErrorKind::NotFound, "is not registered");
    assert_kind(s.modify(&rd, 8, ""), ErrorKind::InvalidInput, "Invalid events: 8");
    assert_eq!(s.get_key(&rd).unwrap(), key3, "an argument that is refused changes nothing");
}

/// An object that breaks its promise to have one descriptor.
struct Moving {
    socks: (Socket, Socket),
    second: Cell<bool>,
}

impl FileObject for &Moving {
    fn descriptor(&self) -> BorrowedFd<'_> {
        if self.second.get() { self.socks.1.descriptor() } else { self.socks.0.descriptor() }
    }
}

/// An error of epoll_ctl(2) ends the registration (bpo-30014). poll(2) has no such call.
fn modify_unregister<B: Backend>() {
    let moving = Moving { socks: socketpair().unwrap(), second: Cell::new(false) };
    let s = Selector::<_, _, B>::new().unwrap();
    s.register(&moving, EVENT_READ, ()).unwrap();
    assert_eq!(s.get_map().len(), 1);
    moving.second.set(true);
    if s.modify(&moving.socks.0, EVENT_WRITE, ()).is_err() {
        assert_eq!(s.get_map().len(), 0);
    } else {
        assert_eq!(s.get_map().len(), 1);
    }
    assert_eq!(s.get_map().is_empty(), !std::any::type_name::<B>().ends_with("PollSet"));
}

fn close<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, wr) = socketpair().unwrap();
    let (other, ours) = socketpair().unwrap();
    s.register(rd, EVENT_READ, ()).unwrap();
    let kept = s.register(other, EVENT_WRITE, ()).unwrap();
    s.close();
    assert_eq!(wr.recv(1).unwrap(), b"", "a registered socket is closed with the selector");
    kept.fileobj.sendall(b"open").unwrap();
    assert_eq!(ours.recv(10).unwrap(), b"open", "a key keeps its socket open");
}

fn get_key<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, wr) = socketpair().unwrap();
    let key = s.register(&rd, EVENT_READ, "data").unwrap();
    assert_eq!(s.get_key(&rd).unwrap(), key);
    assert_kind(s.get_key(&wr), ErrorKind::NotFound, "is not registered");
}

fn get_map<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, wr) = socketpair().unwrap();
    let keys = s.get_map();
    assert!(keys.is_empty());
    assert_eq!(keys.len(), 0);
    assert!(keys.keys().is_empty());
    let key = s.register(&rd, EVENT_READ, "data").unwrap();
    // It is a view.
    assert!(keys.contains(&rd));
    assert_eq!(keys.get(&rd), Some(key.clone()));
    assert_eq!(keys.len(), 1);
    assert_eq!(keys.keys(), [rd.fileno()]);
    assert_eq!(keys.values(), [key]);
    assert_eq!(keys.get(&wr), None);
    assert!(!keys.contains(&wr));
}

fn select<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, wr) = socketpair().unwrap();
    s.register(&rd, EVENT_READ, ()).unwrap();
    let wr_key = s.register(&wr, EVENT_WRITE, ()).unwrap();
    assert_eq!(s.select(None).unwrap(), [(wr_key, EVENT_WRITE)]);
}

/// Both events are found by a single call (gh-110038).
fn select_read_write<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (sock1, sock2) = socketpair().unwrap();
    sock2.send(b"foo").unwrap();
    let my_key = s.register(&sock1, EVENT_READ | EVENT_WRITE, ()).unwrap();
    assert_eq!(s.select(None).unwrap(), [(my_key, EVENT_READ | EVENT_WRITE)]);
}

#[cfg(target_os = "linux")]
#[test]
fn fileno() {
    let s = EpollSelector::new().unwrap();
    let (rd, wr) = socketpair().unwrap();
    assert!(s.fileno() >= 0);
    // It is a file object itself.
    s.register(&rd, EVENT_READ, ()).unwrap();
    let mut set = [sock::Poll::new(&s, sock::POLLIN)];
    assert_eq!(sock::poll(&mut set, Some(Duration::ZERO)).unwrap(), 0);
    wr.sendall(b"x").unwrap();
    assert_eq!(sock::poll(&mut set, None).unwrap(), 1);
}

type Found<'a> = Vec<(SelectorKey<&'a Socket, ()>, EventMask)>;

fn find_ready_matching<'a>(ready: &Found<'a>, flag: EventMask) -> Vec<&'a Socket> {
    ready.iter().filter(|(_, events)| events & flag != 0).map(|(key, _)| *key.fileobj).collect()
}

fn selector<B: Backend>() {
    const MSG: &[u8] = b" This is a test.";
    let pairs: Vec<_> = (0..12).map(|_| socketpair().unwrap()).collect();
    let s = Selector::<_, _, B>::new().unwrap();
    let (mut r2w, mut w2r) = (HashMap::new(), HashMap::new());
    for (rd, wr) in &pairs {
        s.register(rd, EVENT_READ, ()).unwrap();
        s.register(wr, EVENT_WRITE, ()).unwrap();
        r2w.insert(rd.fileno(), wr);
        w2r.insert(wr.fileno(), rd);
    }
    for left in (0..pairs.len()).rev() {
        let writers = find_ready_matching(&s.select(None).unwrap(), EVENT_WRITE);
        assert_eq!(writers.len(), left + 1);
        let wr = writers[left * 7 % writers.len()];
        wr.send(MSG).unwrap();
        let readers = loop {
            let readers = find_ready_matching(&s.select(None).unwrap(), EVENT_READ);
            if !readers.is_empty() {
                break readers;
            }
        };
        assert_eq!(readers.len(), 1);
        let rd = readers[0];
        assert_eq!(rd.fileno(), w2r[&wr.fileno()].fileno());
        assert_eq!(rd.recv(MSG.len()).unwrap(), MSG);
        s.unregister(r2w[&rd.fileno()]).unwrap();
        s.unregister(rd).unwrap();
    }
    assert!(s.get_map().is_empty());
}

fn empty_select<B: Backend>() {
    let s = Selector::<Socket, (), B>::new().unwrap();
    assert!(s.select(0).unwrap().is_empty());
}

fn timeout<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, wr) = socketpair().unwrap();
    s.register(&wr, EVENT_WRITE, ()).unwrap();
    assert_eq!(s.select(0).unwrap().len(), 1);
    assert_eq!(s.select(-1).unwrap().len(), 1);
    s.unregister(&wr).unwrap();
    s.register(&rd, EVENT_READ, ()).unwrap();
    let begin = Instant::now();
    assert!(s.select(0).unwrap().is_empty());
    assert!(s.select(-1).unwrap().is_empty());
    assert!(begin.elapsed() < Duration::from_secs(20), "neither waits");
    let begin = Instant::now();
    assert!(s.select(0.3).unwrap().is_empty());
    assert!(begin.elapsed() >= Duration::from_millis(300), "after {:?}", begin.elapsed());
}

fn empty_select_timeout<B: Backend>() {
    let s = Selector::<Socket, (), B>::new().unwrap();
    let begin = Instant::now();
    assert!(s.select(0.3).unwrap().is_empty());
    assert!(begin.elapsed() >= Duration::from_millis(300), "after {:?}", begin.elapsed());
}

/// epoll(7) refuses a file on a disk, and it is not registered then. poll(2) has it always ready.
#[cfg(target_os = "linux")]
#[test]
fn register_file() {
    let file = tempfile::tempfile().unwrap();
    let s = EpollSelector::new().unwrap();
    let error = s.register(&file, EVENT_READ, ()).unwrap_err();
    assert_eq!(sock::errno(&error).and_then(sock::errno_name), Some("EPERM"));
    assert_kind(s.get_key(&file), ErrorKind::NotFound, "is not registered");

    let s = sock::selectors::PollSelector::new().unwrap();
    s.register(&file, EVENT_READ, ()).unwrap();
    assert_eq!(s.select(0).unwrap().len(), 1);
}

// What is different from Python, or not in its tests.

fn an_object_is_open_while_it_is_registered<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (ours, theirs) = socketpair().unwrap();
    theirs.settimeout(Duration::from_millis(20)).unwrap();
    let key = s.register(ours, EVENT_READ, ()).unwrap();
    drop(key);
    assert_eq!(theirs.recv(1).unwrap_err().kind(), ErrorKind::TimedOut, "the selector keeps it open");
    let key = s.unregister(&s.get_map().values()[0]).unwrap();
    assert_eq!(theirs.recv(1).unwrap_err().kind(), ErrorKind::TimedOut, "the key keeps it open");
    Arc::into_inner(key.fileobj).expect("it is shared no more").close().unwrap();
    assert_eq!(theirs.recv(1).unwrap(), b"");
}

/// A descriptor's number is given away again as soon as it is closed.
fn a_number_in_use_again_is_another_key<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    for turn in 0..1000 {
        let (ours, theirs) = socketpair().unwrap();
        theirs.sendall(b"x").unwrap();
        let key = s.register(ours, EVENT_READ, turn).unwrap();
        let ready = s.select(0).unwrap();
        assert_eq!(ready, [(key.clone(), EVENT_READ)]);
        // A second descriptor of the socket stays open: epoll(7) would go on reporting it.
        let _twin = key.fileobj.dup().unwrap();
        s.unregister(&key).unwrap();
        let number = key.fd;
        drop((key, ready));
        let (next, _peer) = socketpair().unwrap();
        let next = s.register(next, EVENT_READ, turn).unwrap();
        assert!(s.select(0).unwrap().is_empty(), "{} after {number}", next.fd);
        s.unregister(&next).unwrap();
    }
}

fn connection_to(address: &Address) -> Socket {
    let sock = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
    sock.connect(address).unwrap();
    sock
}

fn a_changing_map_of_sockets<B: Backend>() {
    struct Client {
        name: String,
        outgoing: RefCell<Vec<u8>>,
    }

    let sel = Selector::<_, _, B>::new().unwrap();
    let listener = sock::create_server(("127.0.0.1", 0)).unwrap();
    let address = listener.getsockname().unwrap();
    sel.register(listener, EVENT_READ, None).unwrap();
    let clients: Vec<_> = (0..3).map(|_| connection_to(&address)).collect();
    for client in &clients {
        client.sendall(b"hello").unwrap();
        client.shutdown(SHUT_WR).unwrap();
    }
    let mut served = 0;
    while served < clients.len() {
        for (key, mask) in sel.select(None).unwrap() {
            let Some(client) = &*key.data else {
                let (sock, peer) = key.fileobj.accept().unwrap();
                let client = Client { name: peer.to_string(), outgoing: RefCell::default() };
                sel.register(sock, EVENT_READ, Some(client)).unwrap();
                continue;
            };
            if mask & EVENT_READ != 0 {
                let data = key.fileobj.recv(100).unwrap();
                client.outgoing.borrow_mut().extend(data);
                sel.modify(&key, EVENT_WRITE, key.data.clone()).unwrap();
            } else {
                assert!(!client.name.is_empty());
                let answer = std::mem::take(&mut *client.outgoing.borrow_mut());
                key.fileobj.sendall(&answer).unwrap();
                sel.unregister(&key).unwrap();
                served += 1;
            }
        }
    }
    for client in clients {
        assert_eq!(client.recv(100).unwrap(), b"hello");
        assert_eq!(client.recv(100).unwrap(), b"");
    }
    assert_eq!(sel.get_map().len(), 1);
}

/// Its object is still open, and its number is not in use again.
fn a_result_may_unregister_what_is_behind_it<B: Backend>() {
    let sel = Selector::<_, _, B>::new().unwrap();
    let (one, first) = socketpair().unwrap();
    let (two, second) = socketpair().unwrap();
    for (sock, peer) in [(one, &first), (two, &second)] {
        peer.sendall(b"x").unwrap();
        sel.register(sock, EVENT_READ, ()).unwrap();
    }
    let mut seen = Vec::new();
    for (key, _) in &sel.select(None).unwrap() {
        for other in sel.get_map().values() {
            sel.unregister(&other).unwrap();
        }
        let (new, _peer) = socketpair().unwrap();
        assert!(!seen.contains(&new.fileno()) && new.fileno() != key.fd);
        seen.push(key.fd);
        assert_eq!(key.fileobj.recv(1).unwrap(), b"x");
    }
    assert_eq!(seen.len(), 2);
}

fn it_is_level_triggered<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, wr) = socketpair().unwrap();
    wr.sendall(b"ab").unwrap();
    let key = s.register(&rd, EVENT_READ, ()).unwrap();
    for _ in 0..3 {
        assert_eq!(s.select(0).unwrap(), [(key.clone(), EVENT_READ)]);
    }
    rd.recv(1).unwrap();
    assert_eq!(s.select(0).unwrap().len(), 1);
    rd.recv(1).unwrap();
    assert_eq!(s.select(0).unwrap().len(), 0);
}

/// EPOLLHUP and EPOLLERR are reported as what the key waits for, as in Python.
fn an_end_and_an_error_are_events<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, wr) = socketpair().unwrap();
    let key = s.register(&rd, EVENT_READ, ()).unwrap();
    wr.shutdown(SHUT_WR).unwrap();
    assert_eq!(s.select(None).unwrap(), [(key, EVENT_READ)]);
    assert_eq!(rd.recv(1).unwrap(), b"");

    // A connect that is refused.
    let refused = sock::create_server(("127.0.0.1", 0)).unwrap().getsockname().unwrap();
    let sock = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
    sock.setblocking(false).unwrap();
    s.unregister(&rd).unwrap();
    sock.connect(&refused).unwrap_err();
    let key = s.register(&sock, EVENT_WRITE, ()).unwrap();
    assert_eq!(s.select(None).unwrap(), [(key, EVENT_WRITE)]);
    assert_eq!(sock.connect(&refused).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// A stream that has received ahead, as that of TLS does.
struct Ahead {
    sock: Socket,
    bytes: AtomicUsize,
}

impl StreamSocket for Ahead {
    fn recv_into(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.bytes.swap(0, Ordering::Relaxed))
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.sock.send(data)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.sock.shutdown(how)
    }

    fn socket(&self) -> &Socket {
        &self.sock
    }

    fn pending(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn buffered_input_is_ready<B: Backend>() {
    let s = Selector::<Box<dyn StreamSocket>, _, B>::new().unwrap();
    let (sock, _theirs) = socketpair().unwrap();
    let (plain, _peer) = socketpair().unwrap();
    s.register(Box::new(plain), EVENT_READ, ()).unwrap();
    let key = s.register(Box::new(Ahead { sock, bytes: AtomicUsize::new(5) }), EVENT_READ, ()).unwrap();
    assert_eq!(s.select(None).unwrap(), [(key.clone(), EVENT_READ)], "it would wait for ever");
    assert_eq!(key.fileobj.recv_into(&mut [0; 9]).unwrap(), 5);
    assert!(s.select(0).unwrap().is_empty());

    // Of an event that is waited for alone.
    let sock = Ahead { sock: socketpair().unwrap().0, bytes: AtomicUsize::new(5) };
    s.unregister(&key).unwrap();
    let key = s.register(Box::new(sock), EVENT_WRITE, ()).unwrap();
    assert_eq!(s.select(0).unwrap(), [(key, EVENT_WRITE)]);
}

fn buffered_input_and_the_systems_are_one_event<B: Backend>() {
    let s = Selector::<Box<dyn StreamSocket>, _, B>::new().unwrap();
    let (sock, _theirs) = socketpair().unwrap();
    let (plain, peer) = socketpair().unwrap();
    peer.sendall(b"x").unwrap();
    let both = EVENT_READ | EVENT_WRITE;
    let ahead = s.register(Box::new(Ahead { sock, bytes: AtomicUsize::new(5) }), both, ()).unwrap();
    let plain = s.register(Box::new(plain), EVENT_READ, ()).unwrap();
    let mut ready = s.select(None).unwrap();
    ready.sort_by_key(|(key, _)| key.fd);
    let mut expected = [(ahead, both), (plain, EVENT_READ)];
    expected.sort_by_key(|(key, _)| key.fd);
    assert_eq!(ready, expected);
}

fn a_cancelled_wait_fails_and_what_is_ready_is_reported<B: Backend + Send + Sync>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, wr) = socketpair().unwrap();
    let key = s.register(&rd, EVENT_READ, ()).unwrap();
    let canceller = s.canceller().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| s.select(None).unwrap_err());
        canceller.cancel();
        assert!(was_cancelled(&waiting.join().unwrap()));
    });
    assert!(was_cancelled(&s.select(60).unwrap_err()), "from now on");
    assert!(s.canceller().is_ok() && was_cancelled(&s.select(None).unwrap_err()), "it has one canceller");
    assert!(s.select(0).unwrap().is_empty(), "it does not wait");
    wr.sendall(b"x").unwrap();
    assert_eq!(s.select(None).unwrap(), [(key, EVENT_READ)], "it need not wait");
}

/// With epoll(7) while the wait goes on, with poll(2) from the next wait on.
fn another_thread_may_register<B: Backend + Send + Sync>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, wr) = socketpair().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| s.register(&wr, EVENT_WRITE, ()).unwrap());
        let begin = Instant::now();
        s.register(&rd, EVENT_READ, ()).unwrap();
        while s.select(0.01).unwrap().is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(60));
        }
    });
    assert_eq!(s.get_map().len(), 2);
}

fn a_timeout_has_the_forms_of_settimeout<B: Backend>() {
    let s = Selector::<_, _, B>::new().unwrap();
    let (rd, wr) = socketpair().unwrap();
    s.register(&wr, EVENT_WRITE, ()).unwrap();
    for ready in [
        s.select(None),
        s.select(5),
        s.select(2.5),
        s.select(Duration::MAX),
        s.select(Some(Duration::ZERO)),
    ] {
        assert_eq!(ready.unwrap().len(), 1);
    }
    assert_kind(s.select(f64::NAN), ErrorKind::InvalidInput, "Invalid value NaN (not a number)");
    drop(rd);
}

/// The types of `DefaultSelector` are inferred, or those of a plain socket without data.
#[test]
fn a_default_selector_needs_no_types() {
    struct Server {
        sel: DefaultSelector,
    }

    let server = Server { sel: DefaultSelector::new().unwrap() };
    let (ours, _theirs) = socketpair().unwrap();
    server.sel.register(ours, EVENT_WRITE, ()).unwrap();
    assert_eq!(server.sel.select(None).unwrap().len(), 1);

    fn is_shared<T: Send + Sync>(_: &T) {}
    is_shared(&server.sel);
    let sel = DefaultSelector::new().unwrap();
    let (ours, _theirs) = socketpair().unwrap();
    sel.register(std::rc::Rc::new(ours), EVENT_WRITE, Cell::new(1)).unwrap();
    assert!(format!("{sel:?}").contains("events: 2"), "{sel:?}");
}
