//! The promise: `shutdown`, `drain` and `stats` return or fail in bounded time in every hook of the
//! models that fork, in the parent and in the other processes.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use sock::{AF_UNIX, Address, MSG_DONTWAIT, SOCK_DGRAM, Socket};
use sockserver::kind::Inet;
use sockserver::{
    ForkingMixIn, MixIn, PreforkMixIn, PreforkTCPServer, Request, RequestError, ServerHandle, ServerHooks,
    ServerState, StreamContext, StreamRequestHandler, StreamServer,
};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to};

pub(crate) const TESTS: &[Test] = &[
    ("calls_in_hooks_of_forking_servers_return", || calls_return(ForkingMixIn::new, 4, false)),
    ("calls_in_hooks_of_prefork_servers_return", || {
        calls_return(|| PreforkMixIn::new().workers(1).max_requests(1, 0), 1, true)
    }),
    ("calls_in_the_reload_hook_return", calls_in_reload_return),
];

const LONG: Duration = Duration::from_secs(3600);

const PLACES: [&str; 15] = [
    "get_request",
    "verify_request",
    "refuse_request",
    "handle_error",
    "shutdown_request",
    "close_request",
    "wrap_request",
    "service_actions",
    "setup",
    "handle",
    "finish",
    "start_worker",
    "worker_exit",
    "state_changed",
    "handle_timeout",
];

struct Caller {
    place: &'static str,
    call: &'static str,
    reached: AtomicBool,
    handle: OnceLock<ServerHandle>,
    /// Receives a datagram for each call that has returned, from any process.
    returned: Socket,
}

impl Caller {
    fn reach(&self, place: &'static str) {
        let Some(handle) = self.handle.get().filter(|_| place == self.place) else { return };
        if self.reached.swap(true, Ordering::SeqCst) {
            return;
        }
        let result = match self.call {
            "shutdown" => handle.shutdown(),
            "drain" => handle.drain(LONG).map(drop),
            _ => {
                let _ = handle.stats();
                Ok(())
            }
        };
        let text = result.err().map_or_else(|| "Ok".to_owned(), |error| format!("{:?}", error.kind()));
        self.returned.send(text.as_bytes()).unwrap();
    }
}

struct Hooks(Arc<Caller>);

impl ServerHooks for Hooks {
    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        let accepted = socket.accept()?;
        self.0.reach("get_request");
        Ok(accepted)
    }

    fn verify_request(&self, _request: &Request, _client_address: &Address) -> bool {
        self.0.reach("verify_request");
        true
    }

    fn refuse_request(&self, _request: &Request, _client_address: &Address) {
        self.0.reach("refuse_request");
    }

    fn handle_error(&self, _error: &RequestError, _client_address: &Address) {
        self.0.reach("handle_error");
    }

    fn shutdown_request(&self, _request: &Request) {
        self.0.reach("shutdown_request");
    }

    fn close_request(&self, _request: &Request) {
        self.0.reach("close_request");
    }

    fn start_worker(&self) -> io::Result<()> {
        self.0.reach("start_worker");
        Ok(())
    }

    fn worker_exit(&self) {
        self.0.reach("worker_exit");
    }

    fn state_changed(&self, _state: ServerState) {
        self.0.reach("state_changed");
    }

    fn handle_timeout(&self) {
        self.0.reach("handle_timeout");
    }

    fn reload(&self) -> io::Result<()> {
        self.0.reach("reload");
        Ok(())
    }
}

struct Handler(Arc<Caller>);

impl StreamRequestHandler for Handler {
    fn setup(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.reach("setup");
        Ok(())
    }

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.reach("handle");
        cx.wfile.write_all(b"served")?;
        if self.0.place == "handle_error" { Err(io::Error::other("as planned")) } else { Ok(()) }
    }

    fn finish(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.reach("finish");
        Ok(())
    }
}

/// Makes each call in each place. `in_parent` is how many of the hooks run in the parent's loop.
fn calls_return<M: MixIn + Default>(mixin: impl Fn() -> M, in_parent: usize, has_workers: bool) {
    let mut deadlocks = 0;
    for place in PLACES {
        for call in ["shutdown", "drain", "stats"] {
            if place == "start_worker" && !has_workers {
                continue;
            }
            let times_out = place == "handle_timeout";
            let (returned, returns) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap();
            let (reached, handle) = (AtomicBool::new(false), OnceLock::new());
            let caller = Arc::new(Caller { place, call, reached, handle, returned });
            let (made, wrapped, acting) = (Arc::clone(&caller), Arc::clone(&caller), Arc::clone(&caller));
            let returns = Arc::new(returns);
            let (result, received) = (Arc::new(OnceLock::new()), Arc::clone(&returns));
            let set = Arc::clone(&result);
            let builder = StreamServer::<Inet, M>::builder(move || Handler(Arc::clone(&made)))
                .hooks(Hooks(Arc::clone(&caller)))
                .mixin(mixin())
                .poll_interval(Duration::from_millis(3))
                .linger_timeout(Duration::ZERO)
                .timeout(Duration::from_millis(1))
                .max_connections_per_ip(if place == "refuse_request" { 0 } else { 100 })
                .wrap_request(move |socket, _| {
                    wrapped.reach("wrap_request");
                    Ok(socket)
                })
                .service_actions(move |handle| {
                    acting.reach("service_actions");
                    if let Ok(text) = received.recv_with_flags(100, MSG_DONTWAIT) {
                        let _ = set.set(String::from_utf8(text).unwrap());
                        handle.request_shutdown().unwrap();
                    }
                });
            let server = builder.bind(LOOPBACK).unwrap();
            let _ = caller.handle.set(server.handle());
            if times_out {
                server.handle_request().unwrap();
                let text = returns.recv_with_flags(100, MSG_DONTWAIT).unwrap();
                let _ = result.set(String::from_utf8(text).unwrap());
            }
            let client = (!times_out).then(|| connect_to(server.server_address()));
            while result.get().is_none() {
                server.serve_forever().unwrap();
            }
            drop(client);
            server.server_close().unwrap();
            let result = result.get().unwrap();
            let what = format!("{call} in {place}: {result}");
            match (call, &result[..]) {
                ("stats", "Ok") | ("shutdown" | "drain", "Unsupported") => {}
                ("shutdown" | "drain", "Deadlock") => deadlocks += 1,
                // No loop runs that it would wait for.
                (_, "Ok") if times_out => {}
                _ => panic!("{what}"),
            }
        }
    }
    assert!(deadlocks > 2 * in_parent, "{deadlocks}");
}

/// On SIGHUP, in the loop of the parent.
fn calls_in_reload_return() {
    for call in ["shutdown", "drain", "stats"] {
        let (returned, returns) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap();
        returns.settimeout(LIMIT).unwrap();
        let (reached, handle) = (AtomicBool::new(false), OnceLock::new());
        let caller = Arc::new(Caller { place: "reload", call, reached, handle, returned });
        let (made, calling) = (Arc::clone(&caller), Arc::clone(&caller));
        let is_sent = AtomicBool::new(false);
        let server = PreforkTCPServer::builder(move || Handler(Arc::clone(&made)))
            .hooks(Hooks(Arc::clone(&caller)))
            .workers(1)
            .manage_workers_on_signals()
            .poll_interval(Duration::from_millis(3))
            .service_actions(move |handle| {
                if !is_sent.swap(true, Ordering::SeqCst) {
                    kill_process(getpid(), Signal::HUP).unwrap();
                }
                if calling.reached.load(Ordering::SeqCst) {
                    handle.request_shutdown().unwrap();
                }
            })
            .bind(LOOPBACK)
            .unwrap();
        let _ = caller.handle.set(server.handle());
        server.serve_forever().unwrap();
        let expected = if call == "stats" { "Ok" } else { "Deadlock" };
        assert_eq!(returns.recv(100).unwrap(), expected.as_bytes(), "{call}");
        server.server_close().unwrap();
    }
}
