//! The promise: a logger may call the server's handle in every record, also at level trace, in every
//! process of a server that forks, and in one that was forked before it serves.

use std::cell::Cell;
use std::fmt::Debug;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sockserver::kind::Inet;
use sockserver::{
    AccessList, ForkingMixIn, MixIn, PreforkMixIn, ServerHandle, StreamContext, StreamServer, handler_fn,
};

use crate::serve_after_fork::single_fork;
use crate::support::{LIMIT, LOOPBACK, connect_to, read_to_end};
use crate::{CLASSES, Test};

pub(crate) const TESTS: &[Test] = &[
    ("a_logger_may_make_all_calls_in_processes", || in_each_forking_model(CallAll)),
    ("a_logger_may_call_shutdown_in_processes", || in_each_forking_model(Shutdown)),
    ("a_logger_may_call_drain_in_processes", || in_each_forking_model(Drain)),
    ("a_logger_may_call_shutdown_while_a_server_changes_its_process", || {
        for_each_model!(changes_its_process)
    }),
];

type Call = Arc<dyn Fn() + Send + Sync>;

/// What is called in each record.
static CALL: Mutex<Option<Call>> = Mutex::new(None);
static RECORDS: AtomicUsize = AtomicUsize::new(0);

struct Logger;

thread_local! {
    /// Whether this thread logs already.
    static LOGS: Cell<bool> = const { Cell::new(false) };
}

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        if LOGS.replace(true) {
            return;
        }
        let call = CALL.lock().unwrap().clone();
        if let Some(call) = call {
            RECORDS.fetch_add(1, Ordering::SeqCst);
            call();
        }
        LOGS.set(false);
    }

    fn flush(&self) {}
}

fn set_call(call: Option<Call>) {
    let _ = log::set_logger(&Logger);
    log::set_max_level(log::LevelFilter::Trace);
    // The drop of a handle closes sockets, which is logged.
    let former = std::mem::replace(&mut *CALL.lock().unwrap(), call);
    drop(former);
}

use Calls::{CallAll, Drain, Shutdown};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Calls {
    CallAll,
    Shutdown,
    Drain,
}

impl Calls {
    fn make(self, handle: &ServerHandle) {
        let result = match self {
            CallAll => {
                assert!(!handle.to_openmetrics().is_empty());
                let _ = (handle.stats(), handle.state(), handle.is_stopping(), handle.admin_address());
                let _ = format!("{handle:?}");
                // Not in children, nor is the other.
                handle.set_access(AccessList::new()).and_then(|()| handle.begin_lame_duck())
            }
            Shutdown => handle.shutdown(),
            Drain => handle.drain(LIMIT).map(drop),
        };
        let error = result.err().map(|error| error.kind());
        let is_known = |kind| [io::ErrorKind::Deadlock, io::ErrorKind::Unsupported].contains(&kind);
        assert!(error.is_none_or(is_known), "{self:?}: {error:?}");
    }
}

fn answer(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let line = cx.request.recv(100)?;
    cx.wfile.write_all(&line)
}

fn logger_calls<M: MixIn + Default + Debug>(calls: Calls, mixin: M) {
    let ends = Arc::new(AtomicUsize::new(0));
    let ending = Arc::clone(&ends);
    let server = StreamServer::<Inet, M>::builder(handler_fn(answer))
        .mixin(mixin)
        .admin((LOOPBACK.0, 0))
        .poll_interval(Duration::from_millis(5))
        .linger_timeout(Duration::ZERO)
        .service_actions(move |handle| {
            if ending.load(Ordering::SeqCst) > 0 && handle.stats().finished == 2 {
                handle.request_shutdown().unwrap();
            }
        })
        .bind(LOOPBACK)
        .unwrap();
    let (address, handle) = (server.server_address().clone(), server.handle());
    let clients = [0; 2].map(|_| {
        let client = connect_to(&address);
        client.sendall(b"request").unwrap();
        client
    });
    let admin = connect_to(&handle.admin_address().unwrap());
    admin.sendall(b"GET /live HTTP/1.1\r\n\r\n").unwrap();
    ends.store(1, Ordering::SeqCst);
    let server = Arc::new(server);
    let weak = Arc::downgrade(&server);
    set_call(Some(Arc::new(move || {
        calls.make(&handle);
        if let Some(server) = weak.upgrade().filter(|_| calls == CallAll) {
            let _ = format!("{:?} {:?}", server.mixin(), server.drained());
        }
    })));
    server.serve_forever().unwrap();
    if calls == CallAll {
        assert_eq!(clients.each_ref().map(read_to_end), ["request"; 2]);
    }
    set_call(None);
    Arc::into_inner(server).unwrap().server_close().unwrap();
    assert!(RECORDS.load(Ordering::SeqCst) > 0);
}

fn in_each_forking_model(calls: Calls) {
    logger_calls(calls, ForkingMixIn::new());
    logger_calls(calls, PreforkMixIn::new().workers(2));
    for (_, class) in CLASSES {
        // Workers that leave send a line to the parent.
        logger_calls(calls, PreforkMixIn::new().workers(2).worker_class(class).max_requests(1, 0));
    }
}

/// The socket pairs of a server are replaced in the child, under a lock.
fn changes_its_process<M: MixIn + Default>(model: &str, mixin: fn() -> M) {
    let server =
        StreamServer::<Inet, M>::builder(handler_fn(answer)).mixin(mixin()).bind(LOOPBACK).unwrap();
    let handle = server.handle();
    let child = single_fork(&mut |control| {
        let own = handle.clone();
        set_call(Some(Arc::new(move || Shutdown.make(&own))));
        handle.shutdown().unwrap();
        server.serve_forever().unwrap();
        set_call(None);
        let records = RECORDS.load(Ordering::SeqCst);
        control.sendall(format!("{records} records\n").as_bytes()).unwrap();
    });
    let line = child.control.recv(100).unwrap();
    assert!(line.ends_with(b" records\n") && !line.starts_with(b"0 "), "{model}: {line:?}");
}
