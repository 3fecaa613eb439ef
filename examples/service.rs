//! An HTTP service for use behind a balancer, under systemd or in Kubernetes.
//!
//! `/` answers with the file PAGE, which SIGHUP loads again. `/live` and `/ready` are for probes, and
//! `/metrics` is for Prometheus. SIGTERM or Ctrl-C begins the lame duck: for LAME_DUCK seconds `/ready`
//! answers 503, the rest is served as before, and connections are closed after an answer. Then
//! requests that have begun may take ten seconds more. A second signal ends both.
//!
//! MODEL is `tcp`, `threading`, `forking`, `pool`, `prefork` or `selector`. PROXY is `off`, or the
//! networks of balancers that send a PROXY protocol header: `127.0.0.1,10.0.0.0/8`. Sockets of systemd
//! (`LISTEN_FDS`) are used instead of HOST and PORT, and systemd is notified.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example service --features service -- 127.0.0.1 8000 threading 3 off /etc/os-release
//! ```
//!
//! Try `curl -i http://127.0.0.1:8000/ready`, again after Ctrl-C, and `pkill -HUP -x service`. Or start
//! it with `systemd-socket-activate -l 127.0.0.1:8000 target/debug/examples/service`, then use `curl`.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, atomic::AtomicBool, atomic::Ordering};
use std::time::Duration;

use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, ProxyProtocol, SelectorTCPServer, ServerHooks, ServerState,
    StreamContext, StreamRequestHandler, TCPServer, ThreadPoolTCPServer, ThreadingTCPServer,
};
#[cfg(unix)]
use sockserver::{PreforkTCPServer, WorkerClass};

mod common;
#[path = "common/http.rs"]
mod http;

use http::{Request, read_head};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// HOST, PORT, MODEL, LAME_DUCK, PROXY and PAGE.
type Options = (String, u16, [String; 4]);

#[derive(Clone, Default)]
struct Service {
    page: Arc<(String, Mutex<String>)>,
    /// Whether connections stay open. In a `TCPServer` an idle one would keep other clients waiting.
    keeps_alive: bool,
    /// SIGHUP was received. A prefork server calls `reload` itself.
    is_hung_up: Arc<AtomicBool>,
}

impl StreamRequestHandler for Service {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let head = read_head(&mut cx.rfile)?;
        if head.is_empty() {
            return Ok(()); // A check that only connects, or the end of a connection.
        }
        let request = Request::parse(&head).filter(|request| request.is_valid);
        let (method, path) =
            request.as_ref().map_or(("", ""), |request| (&*request.method, request.path()));
        let state = cx.server.state();
        let is_ready = state == ServerState::Ready;
        let (status, body) = match path {
            _ if request.is_none() => ("400 Bad Request", "bad request\n".to_owned()),
            _ if !["GET", "HEAD"].contains(&method) => ("405 Method Not Allowed", "only GET\n".to_owned()),
            "/" => ("200 OK", self.page.1.lock().unwrap().clone()),
            "/ready" if !is_ready => ("503 Service Unavailable", format!("{state:?}\n")),
            "/live" | "/ready" => ("200 OK", format!("{state:?}\n")),
            "/metrics" => ("200 OK", cx.server.stats().to_openmetrics()),
            _ => ("404 Not Found", "not found\n".to_owned()),
        };
        // A client that sends its next request while the server stops may lose it.
        let is_kept = request.as_ref().is_some_and(|request| request.keeps);
        cx.close_connection = !(is_kept && self.keeps_alive && is_ready);
        let connection = if cx.close_connection { "close" } else { "keep-alive" };
        let kind = if path == "/metrics" { OPENMETRICS } else { "text/plain; charset=utf-8" };
        let fields = format!("Content-Type: {kind}\r\nAllow: GET, HEAD\r\nContent-Length: {}", body.len());
        let body = if method == "HEAD" { "" } else { &body };
        write!(cx.wfile, "HTTP/1.1 {status}\r\n{fields}\r\nConnection: {connection}\r\n\r\n{body}")
    }
}

impl ServerHooks for Service {
    /// Loads the page. Processes that are forked later inherit it.
    fn reload(&self) -> io::Result<()> {
        let (path, page) = &*self.page;
        let text = std::fs::read_to_string(path);
        *page.lock().unwrap() = text.map_err(|error| io::Error::other(format!("{path}: {error}")))?;
        common::note(format_args!("{path} is loaded"));
        Ok(())
    }

    fn state_changed(&self, state: ServerState) {
        common::note(format_args!("process {}: {state:?}", std::process::id()));
    }
}

fn serve<M: MixIn>(server: Builder<Stream<Inet>, M>, service: Service, given: Options) -> io::Result<()> {
    let (host, port, [_, lame_duck, proxy, _]) = given;
    let seconds = lame_duck.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let lame_duck = seconds.unwrap_or_else(|| common::refuse("LAME_DUCK must be a number of seconds"));
    let mut server = server.allow_reuse_address(true).drain_on_signals(Duration::from_secs(10));
    if proxy != "off" {
        server = server.proxy_protocol(ProxyProtocol::from_networks(proxy.split(','))?);
    }
    let server = server.lame_duck(lame_duck).hooks(service.clone()).service_actions(move |_| {
        if service.is_hung_up.swap(false, Ordering::Relaxed) {
            service.reload().unwrap_or_else(|error| common::note(format_args!("not loaded: {error}")));
        }
    });
    #[cfg(unix)]
    let server = server.systemd().bind_or_take_over((host, port))?;
    #[cfg(not(unix))]
    let server = server.bind((host, port))?;
    common::note(format_args!("listening on {}", server.server_address()));
    server.serve_forever().map(|()| common::note(server.stats()))
}

fn main() -> common::Result {
    env_logger::init();
    let more = [("MODEL", "threading"), ("LAME_DUCK", "3"), ("PROXY", "off"), ("PAGE", "/etc/os-release")];
    let given = common::address_and_more("127.0.0.1", 8000, more);
    let [model, _, _, page] = given.2.clone();
    let mut service = Service { keeps_alive: model != "tcp", ..Service::default() };
    service.page = Arc::new((page, Mutex::default()));
    service.reload()?;
    #[cfg(unix)]
    if model != "prefork" {
        signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&service.is_hung_up))?;
    }
    let (handler, hooks) = (service.clone(), service);
    let handler = move || handler.clone();
    Ok(match model.as_str() {
        "tcp" => serve(TCPServer::builder(handler), hooks, given),
        "threading" => serve(ThreadingTCPServer::builder(handler), hooks, given),
        "forking" => serve(ForkingTCPServer::builder(handler), hooks, given),
        "pool" => serve(ThreadPoolTCPServer::builder(handler), hooks, given),
        "selector" => serve(SelectorTCPServer::builder(handler), hooks, given),
        #[cfg(unix)]
        "prefork" => {
            let server = PreforkTCPServer::builder(handler).worker_class(WorkerClass::Selector);
            serve(server.manage_workers_on_signals(), hooks, given)
        }
        _ => common::refuse("MODEL must be tcp, threading, forking, pool, prefork or selector"),
    }?)
}
