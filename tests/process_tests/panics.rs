//! The promise: an error whose `Display` or `Drop` panics, and a logger that panics, end neither the
//! loop of a forking server nor a pre-forked worker.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sock::{Address, Socket};
use sockserver::kind::Inet;
use sockserver::{ForkingMixIn, MixIn, PreforkMixIn, Stats, StreamServer, handler_fn};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to};

pub(crate) const TESTS: &[Test] = &[
    ("prefork_loses_no_worker_when_errors_and_the_logger_panic", || {
        let stats = serve_clients(PreforkMixIn::new().workers(1));
        assert_eq!((stats.failed, stats.panicked), (CLIENTS - 1, 0), "{stats:?}");
    }),
    ("forking_continues_when_errors_and_the_logger_panic", || {
        let stats = serve_clients(ForkingMixIn::new());
        assert_eq!((stats.failed, stats.panicked), (CLIENTS - 1, 0), "{stats:?}");
    }),
];

const CLIENTS: u64 = 4;

#[derive(Debug)]
struct Panicking;

impl fmt::Display for Panicking {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("as planned");
    }
}

impl Error for Panicking {}

impl Drop for Panicking {
    fn drop(&mut self) {
        panic!("as planned");
    }
}

struct PanickingLogger;

impl log::Log for PanickingLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        panic!("as planned");
    }

    fn flush(&self) {}
}

/// Serves clients whose handlers fail, and at last one that is answered. A pre-forked worker names
/// itself before it fails.
fn serve_clients<M: MixIn + Default>(mixin: M) -> Stats {
    log::set_logger(&PanickingLogger).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    std::panic::set_hook(Box::new(|info| {
        if info.payload().downcast_ref::<&str>() != Some(&"as planned") {
            eprintln!("{info}");
        }
    }));
    let is_prefork = std::any::type_name::<M>().contains("Prefork");
    let handler = handler_fn(|cx| {
        let request = cx.request.recv(1)?;
        cx.wfile.write_all(std::process::id().to_string().as_bytes())?;
        if request == b"f" { Err(io::Error::other(Panicking)) } else { Ok(()) }
    });
    let address = Arc::new(Mutex::new(None::<Address>));
    let (known, begin) = (Arc::clone(&address), Instant::now());
    let done = Arc::new(AtomicBool::new(false));
    let (is_done, answers) = (Arc::clone(&done), Mutex::new((None::<Socket>, Vec::new())));
    // The loop is the only thread, so its hook plays the clients.
    let server = StreamServer::<Inet, M>::builder(handler)
        .mixin(mixin)
        .poll_interval(Duration::from_millis(2))
        .service_actions(move |handle| {
            assert!(begin.elapsed() < LIMIT, "no answer");
            let Some(address) = known.lock().clone() else { return };
            let (client, answers) = &mut *answers.lock();
            if answers.len() as u64 == CLIENTS {
                let stats = handle.stats();
                if stats.in_flight == 0 && stats.accepted == CLIENTS {
                    is_done.store(true, Ordering::SeqCst);
                    let _ = handle.request_shutdown();
                }
                return;
            }
            let client_or_new = client.get_or_insert_with(|| {
                let new = connect_to(&address);
                new.setblocking(false).unwrap();
                new.sendall(if answers.len() as u64 == CLIENTS - 1 { b"!" } else { b"f" }).unwrap();
                new
            });
            match client_or_new.recv(100) {
                Ok(answer) if !answer.is_empty() => {
                    if let Some(first) = answers.first().filter(|_| is_prefork) {
                        assert_eq!(first, &answer, "the worker was replaced");
                    }
                    answers.push(answer);
                    *client = None;
                }
                Ok(_) => panic!("no answer"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        })
        .bind(LOOPBACK)
        .unwrap();
    *address.lock() = Some(server.server_address().clone());
    server.serve_forever().unwrap();
    assert!(done.load(Ordering::SeqCst), "the loop ended early");
    let stats = server.stats();
    server.server_close().unwrap();
    stats
}
