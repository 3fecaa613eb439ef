//! The promise: a server stops at once, whichever thread stops it, and an idle server does not wake
//! up.

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

use support::{StopOnDrop, wait_until};

const LOOPBACK: (&str, u16) = ("127.0.0.1", 0);
/// The time after which a test fails instead of hanging.
const LIMIT: Duration = Duration::from_secs(20);

fn connect_to(address: &Address) -> Socket {
    let client = create_connection(("127.0.0.1", address.port().unwrap())).unwrap();
    client.settimeout(LIMIT).unwrap();
    client
}

/// Serves in a thread and sends the result of `serve_forever` through the channel.
fn serve_in_thread(server: TCPServer) -> (Arc<TCPServer>, mpsc::Receiver<io::Result<()>>) {
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
fn assert_returns(end: &mpsc::Receiver<io::Result<()>>) {
    end.recv_timeout(LIMIT).expect("serve_forever did not return").expect("serve_forever failed");
}

#[test]
fn shutdown_right_after_the_start_ends_serve_forever() {
    // CPython's test_shutdown (bpo-2302), where a stop takes up to half a second.
    for _ in 0..20 {
        let server = TCPServer::builder(handler_fn(|_| Ok(()))).poll_interval(LIMIT * 2);
        let (server, end) = serve_in_thread(server.bind(LOOPBACK).unwrap());
        server.shutdown().unwrap();
        assert_returns(&end);
    }
}

#[test]
fn a_request_that_arrives_with_the_stop_is_not_accepted() {
    // bpo-35017: no request is accepted after the stop.
    let server = TCPServer::new(LOOPBACK, handler_fn(|cx| cx.request.sendall(b"served"))).unwrap();
    server.handle().request_shutdown().unwrap();
    let client = connect_to(server.server_address());
    server.serve_forever().unwrap();
    server.handle_request().unwrap();
    assert_eq!(client.recv(100).unwrap(), b"served");
}

/// Stops the server in its first attempt to accept, and leaves the client in the queue.
struct StopInTheAttempt {
    handle: Arc<OnceLock<ServerHandle>>,
    attempts: Arc<AtomicUsize>,
}

impl ServerHooks for StopInTheAttempt {
    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        if self.attempts.fetch_add(1, Ordering::SeqCst) > 0 {
            return socket.accept();
        }
        self.handle.get().expect("the server is made").request_shutdown()?;
        Err(io::ErrorKind::WouldBlock.into())
    }
}

#[test]
fn a_request_that_arrives_with_the_stop_is_not_accepted_after_it() {
    // bpo-35017 itself: the stop comes after the loop has checked for it, with a client.
    let (handle, attempts) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
    let server = TCPServer::builder(handler_fn(|cx| cx.request.sendall(b"served")))
        .hooks(StopInTheAttempt { handle: Arc::clone(&handle), attempts: Arc::clone(&attempts) })
        .bind(LOOPBACK)
        .unwrap();
    handle.set(server.handle()).unwrap();
    let client = connect_to(server.server_address());
    server.serve_forever().unwrap();
    assert_eq!(attempts.load(Ordering::SeqCst), 1, "none after the stop");
    client.settimeout(Duration::from_millis(20)).unwrap();
    assert_eq!(
        client.recv(100).unwrap_err().kind(),
        io::ErrorKind::TimedOut,
        "a request was accepted after the stop"
    );
    client.settimeout(LIMIT).unwrap();
    server.handle_request().unwrap();
    assert_eq!(client.recv(100).unwrap(), b"served");
}

#[test]
fn a_stopped_server_serves_again_and_a_stale_stop_has_no_effect() {
    let server = TCPServer::new(LOOPBACK, handler_fn(|cx| cx.request.sendall(b"served"))).unwrap();
    let handle = server.handle();
    for _ in 0..3 {
        thread::scope(|scope| {
            let _stop = StopOnDrop(handle.clone());
            let serving = scope.spawn(|| server.serve_forever());
            assert_eq!(connect_to(server.server_address()).recv(100).unwrap(), b"served");
            handle.shutdown().unwrap();
            serving.join().unwrap().unwrap();
        });
        // A stop without a loop. In Python it would end the next loop.
        handle.shutdown().unwrap();
    }
}

#[test]
fn shutdown_in_the_serving_thread_is_an_error_and_the_server_stops() {
    let (sender, receiver) = mpsc::channel();
    let server = TCPServer::new(LOOPBACK, move || StopsItsServer(sender.clone())).unwrap();
    let (server, end) = serve_in_thread(server);
    let _client = connect_to(server.server_address());
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap(), io::ErrorKind::Deadlock);
    assert_returns(&end);
}

struct StopsItsServer(mpsc::Sender<io::ErrorKind>);

impl StreamRequestHandler for StopsItsServer {
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
    let _client = connect_to(&address);
    assert_returns(&end);
}

#[test]
fn a_second_loop_on_one_server_is_refused() {
    let (server, end) = serve_in_thread(TCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap());
    // A client was served, so the first loop is running.
    assert_eq!(connect_to(server.server_address()).recv(1).unwrap(), b"");
    assert_eq!(server.serve_forever().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    server.shutdown().unwrap();
    assert_returns(&end);
}

/// Returns the number of voluntary context switches of a thread.
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
fn an_idle_server_does_not_wake_up() {
    let (sender, receiver) = mpsc::channel();
    let handler = handler_fn(move |cx| {
        let _ = sender.send(own_thread_id());
        cx.request.sendall(b"served")
    });
    let (server, end) = serve_in_thread(TCPServer::new(LOOPBACK, handler).unwrap());
    let client = connect_to(server.server_address());
    assert_eq!(client.recv(100).unwrap(), b"served");
    assert_eq!(client.recv(100).unwrap(), b"");
    let server_thread = receiver.recv_timeout(LIMIT).unwrap();
    // The loop blocks soon. From then on the count does not change.
    let mut before = switches_of(server_thread);
    let begin = Instant::now();
    loop {
        wait(Duration::from_millis(1200));
        let now = switches_of(server_thread);
        if now == before {
            break;
        }
        before = now;
        assert!(begin.elapsed() < LIMIT, "the server keeps waking up");
    }
    server.shutdown().unwrap();
    assert_returns(&end);
}

/// Waits while nothing must happen. The test is about this time.
#[cfg(target_os = "linux")]
fn wait(time: Duration) {
    sock::poll(&mut [], Some(time)).unwrap();
}

#[test]
fn service_actions_is_called_every_poll_interval() {
    let (calls, called) = mpsc::channel();
    let server = TCPServer::builder(handler_fn(|_| Ok(())))
        .service_actions(move |_| {
            let _ = calls.send(Instant::now());
        })
        .poll_interval(Duration::from_millis(20))
        .bind(LOOPBACK)
        .unwrap();
    let (server, end) = serve_in_thread(server);
    let first = called.recv_timeout(LIMIT).unwrap();
    let mut last = first;
    for _ in 0..5 {
        last = called.recv_timeout(LIMIT).unwrap();
    }
    assert!(
        last - first >= Duration::from_millis(60),
        "service_actions was called too often: {:?}",
        last - first
    );
    server.shutdown().unwrap();
    assert_returns(&end);
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
        let begin = Instant::now();
        let (server, end) = serve_in_thread(server);
        let calls = || hooks.calls.load(Ordering::Relaxed);
        wait_until(&format!("8 calls; delegates: {delegates}"), || calls() >= 8);
        let (calls, intervals) = (calls(), begin.elapsed().as_millis() as usize / 50);
        server.shutdown().unwrap();
        assert_returns(&end);
        assert!(calls <= intervals + 2, "{calls} calls in {intervals} intervals; delegates: {delegates}");
    }
}

#[test]
fn handles_and_servers_are_send_and_sync() {
    fn assert_send_sync<T: Send + Sync + 'static>() {}
    assert_send_sync::<ServerHandle>();
    assert_send_sync::<TCPServer>();
    assert_send_sync::<ThreadingTCPServer>();
    assert_send_sync::<sockserver::UDPServer>();
}
