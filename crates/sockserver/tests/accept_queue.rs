//! The promise: a drain serves the clients that were in the accept queue when it began, and waits for
//! the first request of a client that has just connected.

mod support;

use std::io::{self, BufRead, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sock::{Address, Socket};
#[cfg(unix)]
use sockserver::SelectorMixIn;
use sockserver::kind::{Inet, Unix};
use sockserver::{
    DrainReport, MixIn, Sequential, ServerHandle, StreamContext, StreamServer, ThreadPoolMixIn,
    ThreadingMixIn, WhenQueueFull, handler_fn,
};

use support::{Gate, LIMIT, LOOPBACK, OpenOnDrop, connect_to, read_to_end, wait_for_stats, wait_until};

/// Answers a line. The line `gate` waits for the gate first.
fn answer(gate: &Gate, cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.rfile.read_line(&mut line)?;
    if line == "gate\n" {
        gate.pass();
    }
    cx.wfile.write_all(line.as_bytes())
}

struct Served {
    handle: ServerHandle,
    address: Address,
    gate: Gate,
    end: mpsc::Receiver<io::Result<()>>,
    _open: OpenOnDrop,
    _folder: Option<tempfile::TempDir>,
}

/// Serves one client at a time over TCP, or with a folder over a Unix socket.
fn serve<M: MixIn + Default>(mixin: M, folder: Option<tempfile::TempDir>, most: usize) -> Served {
    let gate = Gate::new();
    let passes = gate.clone();
    let handler = move |cx: &mut StreamContext<'_>| answer(&passes, cx);
    let (ended, end) = mpsc::channel();
    let (handle, address) = match &folder {
        None => {
            let builder = StreamServer::<Inet, M>::builder(handler_fn(handler)).mixin(mixin);
            let server = builder.max_connections(most).bind(LOOPBACK).unwrap();
            let both = (server.handle(), server.server_address().clone());
            thread::spawn(move || ended.send(server.serve_forever().and_then(|()| server.server_close())));
            both
        }
        Some(folder) => {
            let builder = StreamServer::<Unix, M>::builder(handler_fn(handler)).mixin(mixin);
            let server = builder.max_connections(most).bind(folder.path().join("socket")).unwrap();
            let both = (server.handle(), server.server_address().clone());
            thread::spawn(move || ended.send(server.serve_forever().and_then(|()| server.server_close())));
            both
        }
    };
    Served { handle, address, end, _open: OpenOnDrop(gate.clone()), gate, _folder: folder }
}

impl Served {
    fn asks(&self, line: &str) -> Socket {
        let client = connect_to(&self.address);
        client.sendall(line.as_bytes()).unwrap();
        client
    }

    fn ends(self, report: &DrainReport, finished: u64) {
        assert_eq!((report.finished, report.aborted.len()), (finished, 0), "{report}");
        self.end.recv_timeout(LIMIT).expect("it stops").unwrap();
        assert!(self.handle.stats().is_consistent());
    }
}

const QUEUED: usize = 8;

fn serves_the_queue<M: MixIn + Default>(mixin: M, folder: Option<tempfile::TempDir>) {
    let served = serve(mixin, folder, 1);
    let busy = served.asks("gate\n");
    served.gate.wait_for(1);
    let queued: Vec<_> = (0..QUEUED).map(|_| served.asks("hello\n")).collect();
    let report = thread::scope(|scope| {
        let draining = scope.spawn(|| served.handle.drain(LIMIT).unwrap());
        wait_until("new clients are refused", || {
            Socket::new(served.address.family(), sock::SOCK_STREAM, 0)
                .and_then(|late| late.connect(&served.address))
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        });
        served.gate.open();
        draining.join().unwrap()
    });
    assert_eq!(read_to_end(&busy), "gate\n");
    for client in queued {
        assert_eq!(read_to_end(&client), "hello\n");
    }
    let finished = served.handle.stats().finished;
    served.ends(&report, finished);
    assert!(finished > QUEUED as u64);
}

#[cfg(target_os = "linux")]
#[test]
fn a_drain_serves_the_accept_queue() {
    for unix in [false, true] {
        let folder = || unix.then(|| tempfile::tempdir().unwrap());
        serves_the_queue(Sequential, folder());
        serves_the_queue(ThreadingMixIn::new(), folder());
        serves_the_queue(ThreadPoolMixIn::new().workers(2), folder());
        serves_the_queue(ThreadPoolMixIn::new().workers(2).queue(2, WhenQueueFull::Wait), folder());
        serves_the_queue(SelectorMixIn::new().workers(2), folder());
    }
}

fn waits_for_the_first_request<M: MixIn + Default>(mixin: M, folder: Option<tempfile::TempDir>) {
    const CLIENTS: usize = 30;
    let served = serve(mixin, folder, 100);
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect_to(&served.address)).collect();
    wait_for_stats(&served.handle, |stats| stats.accepted == CLIENTS as u64);
    let report = thread::scope(|scope| {
        let draining = scope.spawn(|| served.handle.drain(LIMIT).unwrap());
        wait_until("it is stopping", || served.handle.is_stopping());
        // The requests arrive a moment later.
        let _ = sock::poll(&mut [], Some(Duration::from_millis(100)));
        clients.iter().for_each(|client| client.sendall(b"hello\n").unwrap());
        draining.join().unwrap()
    });
    for client in clients {
        assert_eq!(read_to_end(&client), "hello\n");
    }
    served.ends(&report, CLIENTS as u64);
}

#[test]
fn a_drain_waits_for_the_first_request_of_a_new_client() {
    for unix in [false, cfg!(unix)] {
        let folder = || unix.then(|| tempfile::tempdir().unwrap());
        waits_for_the_first_request(ThreadingMixIn::new(), folder());
        waits_for_the_first_request(ThreadPoolMixIn::new().workers(40), folder());
        #[cfg(unix)]
        waits_for_the_first_request(SelectorMixIn::new().workers(2), folder());
    }
}

#[test]
fn a_client_that_stays_silent_is_closed_as_idle_before_the_limit() {
    let served = serve(ThreadingMixIn::new(), None, 100);
    let silent = connect_to(&served.address);
    wait_for_stats(&served.handle, |stats| stats.accepted == 1);
    let report = served.handle.drain(LIMIT).unwrap();
    assert_eq!((report.idle, report.aborted.len()), (1, 0), "{report}");
    assert!(report.elapsed >= Duration::from_millis(900) && report.elapsed < LIMIT / 4, "{report}");
    assert_eq!(read_to_end(&silent), "");
    served.ends(&report, 0);
}

#[test]
fn queued_clients_that_the_limit_leaves_unserved_are_closed() {
    let served = serve(Sequential, None, 1);
    let busy = served.asks("gate\n");
    served.gate.wait_for(1);
    let queued = served.asks("hello\n");
    let report = served.handle.drain(Duration::from_millis(100)).unwrap();
    assert_eq!((report.finished, report.aborted.len()), (0, 1), "{report}");
    assert_eq!(read_to_end(&queued), "ConnectionReset");
    served.gate.open();
    drop(busy);
    served.end.recv_timeout(LIMIT).expect("it stops").unwrap();
}
