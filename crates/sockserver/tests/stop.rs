//! The promise: a server stops at once, from wherever it is told to, and an
//! idle one makes no wake-ups.

mod support;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use sock::{Address, Socket, create_connection};
use sockserver::{
    ServerHandle, ServerHooks, StreamContext, StreamRequestHandler, TCPServer, ThreadingTCPServer,
    handler_fn,
};

use support::StopAtEnd;

const LOOPBACK: (&str, u16) = ("127.0.0.1", 0);
/// Far more than anything here takes, far less than a hang.
const LIMIT: Duration = Duration::from_secs(20);

fn client_of(address: &Address) -> Socket {
    let client = create_connection(("127.0.0.1", address.port().unwrap())).unwrap();
    client.settimeout(LIMIT).unwrap();
    client
}

/// A server in a thread; what its `serve_forever` returned comes through the channel.
fn serving(server: TCPServer) -> (Arc<TCPServer>, mpsc::Receiver<io::Result<()>>) {
    let (ended, end) = mpsc::channel();
    let server = Arc::new(server);
    let ours = Arc::clone(&server);
    thread::spawn(move || {
        let result = ours.serve_forever();
        drop(ours);
        let _ = ended.send(result);
    });
    (server, end)
}

#[track_caller]
fn wait_for(end: &mpsc::Receiver<io::Result<()>>) {
    end.recv_timeout(LIMIT).expect("serve_forever returns").expect("without an error");
}

#[test]
fn shutdown_right_after_the_start_always_ends_it() {
    // CPython's test_shutdown (bpo-2302), where each takes up to half a second.
    let begin = Instant::now();
    for _ in 0..20 {
        let (server, end) = serving(TCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap());
        server.shutdown().unwrap();
        wait_for(&end);
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "no stop waits for a poll: {:?}", begin.elapsed());
}

#[test]
fn a_request_that_comes_with_the_stop_is_left_for_the_next_server() {
    // bpo-35017: never accepted after the stop.
    let server = TCPServer::new(LOOPBACK, handler_fn(|cx| cx.request.sendall(b"served"))).unwrap();
    server.handle().request_shutdown().unwrap();
    let client = client_of(server.server_address());
    server.serve_forever().unwrap();
    server.handle_request().unwrap();
    assert_eq!(client.recv(100).unwrap(), b"served");
}

/// Stops the server while its loop is about to wait, with a client on its way.
struct StopInTheWait {
    handle: Arc<OnceLock<ServerHandle>>,
    client: mpsc::Sender<Socket>,
}

impl ServerHooks for StopInTheWait {
    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        let taken = socket.accept();
        if taken.is_err() {
            if let Some(handle) = self.handle.get() {
                let _ = self.client.send(client_of(&socket.getsockname()?));
                handle.request_shutdown()?;
            }
        }
        taken
    }
}

#[test]
fn a_request_that_comes_while_it_waits_is_left_for_the_next_server_too() {
    // bpo-35017 itself: the stop comes between the first look and the wait.
    let (send, clients) = mpsc::channel();
    let handle = Arc::new(OnceLock::new());
    let server = TCPServer::builder(handler_fn(|cx| cx.request.sendall(b"served")))
        .hooks(StopInTheWait { handle: Arc::clone(&handle), client: send })
        .bind(LOOPBACK)
        .unwrap();
    handle.set(server.handle()).unwrap();
    server.serve_forever().unwrap();
    let client = clients.recv_timeout(LIMIT).unwrap();
    client.settimeout(Duration::from_millis(20)).unwrap();
    assert_eq!(
        client.recv(100).unwrap_err().kind(),
        io::ErrorKind::TimedOut,
        "not accepted after the stop"
    );
    client.settimeout(LIMIT).unwrap();
    server.handle_request().unwrap();
    assert_eq!(client.recv(100).unwrap(), b"served");
}

#[test]
fn a_stopped_server_serves_again_and_no_stale_stop_ends_it() {
    let server = TCPServer::new(LOOPBACK, handler_fn(|cx| cx.request.sendall(b"served"))).unwrap();
    let handle = server.handle();
    for _ in 0..3 {
        thread::scope(|scope| {
            let _stop = StopAtEnd(handle.clone());
            let serving = scope.spawn(|| server.serve_forever());
            assert_eq!(client_of(server.server_address()).recv(100).unwrap(), b"served");
            handle.shutdown().unwrap();
            serving.join().unwrap().unwrap();
        });
        // Once more, to nobody: in Python the next loop would end by it.
        handle.shutdown().unwrap();
    }
}

#[test]
fn waiting_for_the_own_thread_is_an_error_and_the_server_stops() {
    let (told, hear) = mpsc::channel();
    let server = TCPServer::new(LOOPBACK, move || Suicidal(told.clone())).unwrap();
    let (server, end) = serving(server);
    let _client = client_of(server.server_address());
    assert_eq!(hear.recv_timeout(LIMIT).unwrap(), io::ErrorKind::Deadlock);
    wait_for(&end);
}

struct Suicidal(mpsc::Sender<io::ErrorKind>);

impl StreamRequestHandler for Suicidal {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let error = cx.server.shutdown().unwrap_err();
        let _ = self.0.send(error.kind());
        Ok(())
    }
}

#[test]
fn a_handler_in_a_thread_can_stop_its_server_and_wait() {
    let server = ThreadingTCPServer::new(LOOPBACK, handler_fn(|cx| cx.server.shutdown())).unwrap();
    let address = server.server_address().clone();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let _ = ended.send(server.serve_forever());
    });
    let _client = client_of(&address);
    wait_for(&end);
}

#[test]
fn a_second_loop_on_one_server_is_refused() {
    let (server, end) = serving(TCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap());
    // Served once, the first loop is surely running.
    assert_eq!(client_of(server.server_address()).recv(1).unwrap(), b"");
    assert_eq!(server.serve_forever().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    server.shutdown().unwrap();
    wait_for(&end);
}

/// Context switches of one thread so far, as Linux counts them.
#[cfg(target_os = "linux")]
fn switches_of(thread_id: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread_id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
fn own_thread_id() -> u64 {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn an_idle_server_makes_no_wake_ups() {
    let (told, hear) = mpsc::channel();
    let handler = handler_fn(move |cx| {
        let _ = told.send(own_thread_id());
        cx.request.sendall(b"served")
    });
    let (server, end) = serving(TCPServer::new(LOOPBACK, handler).unwrap());
    let client = client_of(server.server_address());
    assert_eq!(client.recv(100).unwrap(), b"served");
    assert_eq!(client.recv(100).unwrap(), b"");
    let server_thread = hear.recv_timeout(LIMIT).unwrap();
    // It falls asleep soon; from then on its count stands still.
    let mut before = switches_of(server_thread);
    let begin = Instant::now();
    loop {
        wait(Duration::from_millis(1200));
        let now = switches_of(server_thread);
        if now == before {
            break;
        }
        before = now;
        assert!(begin.elapsed() < LIMIT, "the server wakes up again and again");
    }
    server.shutdown().unwrap();
    wait_for(&end);
}

/// The time in which nothing must happen: it is what is tested.
#[cfg(target_os = "linux")]
fn wait(time: Duration) {
    sock::poll(&mut [], Some(time)).unwrap();
}

#[test]
fn service_actions_is_called_at_poll_interval_when_registered() {
    let (calls, called) = mpsc::channel();
    let server = TCPServer::builder(handler_fn(|_| Ok(())))
        .service_actions(move |_| {
            let _ = calls.send(Instant::now());
        })
        .poll_interval(Duration::from_millis(20))
        .bind(LOOPBACK)
        .unwrap();
    let (server, end) = serving(server);
    let first = called.recv_timeout(LIMIT).unwrap();
    let mut last = first;
    for _ in 0..5 {
        last = called.recv_timeout(LIMIT).unwrap();
    }
    assert!(last - first >= Duration::from_millis(60), "paced, not spinning: {:?}", last - first);
    server.shutdown().unwrap();
    wait_for(&end);
}

/// A hook that other hooks call, as in Python by `super().service_actions()`.
struct Base;

impl Base {
    fn service_actions(&self) {}
}

/// Hooks that count the calls, and may call those of another value.
struct Counting {
    calls: AtomicUsize,
    base: Option<Base>,
}

impl Counting {
    fn service_actions(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(base) = &self.base {
            base.service_actions();
        }
    }
}

#[test]
fn service_actions_that_calls_the_hook_of_another_value_is_called_as_often() {
    for base in [None, Some(Base)] {
        let delegates = base.is_some();
        let hooks = Arc::new(Counting { calls: AtomicUsize::new(0), base });
        let counted = Arc::clone(&hooks);
        let server = TCPServer::builder(handler_fn(|_| Ok(())))
            .service_actions(move |_| counted.service_actions())
            .poll_interval(Duration::from_millis(50))
            .bind(LOOPBACK)
            .unwrap();
        let (server, end) = serving(server);
        sock::poll(&mut [], Some(Duration::from_millis(600))).unwrap();
        let calls = hooks.calls.load(Ordering::Relaxed);
        server.shutdown().unwrap();
        wait_for(&end);
        // CPython makes 11 calls. A busy machine may delay some.
        assert!((6..=13).contains(&calls), "{calls} calls; delegates: {delegates}");
    }
}

#[test]
fn handles_and_servers_may_cross_threads() {
    fn assert_send_sync<T: Send + Sync + 'static>() {}
    assert_send_sync::<ServerHandle>();
    assert_send_sync::<TCPServer>();
    assert_send_sync::<ThreadingTCPServer>();
    assert_send_sync::<sockserver::UDPServer>();
}
