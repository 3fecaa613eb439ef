//! The administrative listener: metrics, health checks and commands over HTTP.
//!
//! It is a duty of the server's process, and of none of its children. No call waits: requests are
//! received and answered in parts.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sock::{AF_UNIX, SHUT_WR, Socket, StreamSocket, errno};

use crate::lifecycle::duty::{Duty, Next};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::release::Handing;
use crate::lifecycle::state::ServerState;
use crate::limits::log_limit::{LogKind, log_limited};
use crate::os::bound_path::BoundPath;
use crate::os::log::{errno_field, milliseconds};

/// The listener, and its path.
pub(crate) struct AdminSocket {
    /// Dropped before the socket: see [`BoundPath`].
    pub(crate) path: Option<BoundPath>,
    pub(crate) socket: Arc<Socket>,
}

/// Binds the listener.
pub(crate) type BindAdmin = dyn Fn() -> io::Result<AdminSocket> + Send;

pub(crate) struct Admin {
    /// Binds it if a predecessor still has the address, which it closes with the handover.
    bind: Box<BindAdmin>,
    listener: Option<AdminSocket>,
    /// When binding is tried again.
    retry: Option<Instant>,
    /// No client is accepted before: there was no descriptor for one.
    accept_after: Option<Instant>,
    /// In the order in which they were accepted.
    clients: Vec<Client>,
}

struct Client {
    socket: Arc<Socket>,
    request: Vec<u8>,
    /// The answer, and how much of it is sent. `None` until the request is complete.
    answer: Option<(Vec<u8>, usize)>,
    due: Instant,
}

/// The state of a client after a turn.
enum Turn {
    Waits,
    Done,
}

/// As many clients are served at once. The next one replaces the oldest, so that clients that send
/// nothing do not delay a readiness check.
const MAX_CLIENTS: usize = 32;

/// As many clients are accepted in a turn. Each is served at least once before it is replaced.
const MAX_ACCEPTED: usize = MAX_CLIENTS / 2;

/// How long no client is accepted after an error of accept(2), such as `EMFILE`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A client has so long for its request, the answer, and the end.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);

/// A longer head of a request is refused.
const MAX_REQUEST: usize = 8192;

/// How much of what follows a request is read in a turn, in parts of 1 KiB. Other duties, and the loop
/// of a server that forks, get their turn then.
const MAX_READS: usize = 16;

/// How often a part of an answer is sent to a client whose buffer is full.
const SEND_INTERVAL: Duration = Duration::from_millis(10);

/// How often binding is tried while a predecessor has the address.
const BIND_INTERVAL: Duration = Duration::from_millis(100);

/// The limit of the drain of `POST /stop`, if it names none.
const DRAIN_LIMIT: u32 = 30;

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const INDEX: &str = "GET /metrics   the counters and gauges of the server\n\
                     GET /ready     200 while the server is ready, 503 once a stop has begun\n\
                     GET /live      200 while the server runs\n\
                     POST /lame-duck   fail readiness checks from now on (Unix socket only)\n\
                     POST /stop?limit=SECONDS   drain and stop (Unix socket only)\n";

/// What a request makes the server do, beside the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    None,
    LameDuck,
    Stop(Duration),
}

impl Admin {
    /// Binds the listener. It may be bound later `if_busy`.
    pub(crate) fn new(bind: Box<BindAdmin>, if_busy: bool, server: &ServerHandle) -> io::Result<Admin> {
        let mut admin =
            Admin { bind, listener: None, retry: None, accept_after: None, clients: Vec::new() };
        match admin.try_bind(server) {
            Err(error) if if_busy && error.kind() == ErrorKind::AddrInUse => {
                admin.retry = Some(Instant::now() + BIND_INTERVAL);
            }
            bound => bound?,
        }
        Ok(admin)
    }

    fn try_bind(&mut self, server: &ServerHandle) -> io::Result<()> {
        let bound = (self.bind)()?;
        server.set_admin_address(Some(bound.socket.getsockname()?));
        self.listener = Some(bound);
        Ok(())
    }

    /// Makes this process the one that removes the path.
    fn take_over_path(&self) {
        if let Some(AdminSocket { path: Some(path), .. }) = &self.listener {
            path.take_over();
        }
    }

    fn close(&mut self, server: &ServerHandle) {
        server.set_admin_address(None);
        (self.listener, self.retry) = (None, None);
    }

    fn accept(&mut self) {
        if self.accept_after.is_some_and(|after| Instant::now() < after) {
            return;
        }
        self.accept_after = None;
        for _ in 0..MAX_ACCEPTED {
            let Some(AdminSocket { socket, .. }) = &self.listener else { return };
            let accepted = socket.accept().and_then(|(client, _)| {
                client.setblocking(false)?;
                Ok(client)
            });
            match accepted {
                Ok(client) => {
                    if self.clients.len() >= MAX_CLIENTS {
                        self.clients.remove(0);
                    }
                    self.clients.push(Client {
                        socket: Arc::new(client),
                        request: Vec::new(),
                        answer: None,
                        due: Instant::now() + CLIENT_LIMIT,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    let kind = LogKind::Other(error.kind(), errno(&error));
                    log_limited!(
                        warn, kind, errno = errno_field(&error), limit_ms = milliseconds(ACCEPT_PAUSE);
                        "cannot accept from the administrative listener: {error}"
                    );
                    // The client stays in the queue, and the listener readable.
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }
}

impl Duty for Admin {
    fn waits_for(&self, sockets: &mut Vec<Arc<Socket>>) -> Option<Instant> {
        if self.accept_after.is_none() {
            sockets.extend(self.listener.iter().map(|listener| Arc::clone(&listener.socket)));
        }
        let is_sending =
            |client: &Client| client.answer.as_ref().is_some_and(|(answer, sent)| sent < &answer.len());
        let (sending, receiving): (Vec<_>, Vec<_>) =
            self.clients.iter().partition(|client| is_sending(client));
        sockets.extend(receiving.iter().map(|client| Arc::clone(&client.socket)));
        let due = self.clients.iter().map(|client| client.due);
        let more = (!sending.is_empty()).then(|| Instant::now() + SEND_INTERVAL);
        due.chain(more).chain(self.retry).chain(self.accept_after).min()
    }

    fn run(&mut self, server: &ServerHandle) -> Next {
        if matches!(server.handing(), Handing::Done(_)) {
            // The successor binds it.
            self.close(server);
        }
        if self.retry.is_some_and(|retry| Instant::now() >= retry) {
            self.retry = match self.try_bind(server) {
                Ok(()) => {
                    self.take_over_path();
                    None
                }
                Err(error) if error.kind() == ErrorKind::AddrInUse => Some(Instant::now() + BIND_INTERVAL),
                Err(error) => {
                    log::error!(errno = errno_field(&error); "cannot bind the administrative listener: {error}");
                    None
                }
            };
        }
        self.accept();
        let (mut next, now) = (Next::Continue, Instant::now());
        self.clients.retain_mut(|client| {
            if client.due <= now {
                return false;
            }
            let (turn, command) = client.turn(server);
            match command {
                Command::None => {}
                Command::LameDuck => {
                    // The next client is answered in it. The hook is called later, without a lock.
                    server.state_cell().advance_to_lame_duck();
                    if matches!(next, Next::Continue) {
                        next = Next::LameDuck;
                    }
                }
                Command::Stop(limit) => {
                    if let drain @ Next::Drain(_) = begin_drain(server, limit) {
                        next = drain;
                    }
                }
            }
            matches!(turn, Turn::Waits)
        });
        next
    }

    fn ready(&mut self, _: &ServerHandle) {
        // The server may have been bound before a fork.
        self.take_over_path();
    }

    fn enter_child(&mut self) {
        self.clients.clear();
        if let Some(AdminSocket { path, socket }) = self.listener.take() {
            // The parent removes it.
            std::mem::forget(path);
            drop(socket);
        }
    }
}

/// Begins a drain. A server that forks has no other thread: its loop drains. Otherwise a thread does,
/// so that requests are answered meanwhile.
fn begin_drain(server: &ServerHandle, limit: Duration) -> Next {
    if server.registry().deadline_timer.is_forbidden() {
        return Next::Drain(limit);
    }
    let draining = server.clone();
    let drain = move || match draining.drain(limit) {
        Ok(report) => report.log(),
        Err(error) => log::error!(errno = errno_field(&error); "cannot drain: {error}"),
    };
    match thread::Builder::new().name("sockserver-drain".to_owned()).spawn(drain) {
        Ok(_) => Next::Continue,
        Err(_) => Next::Drain(limit),
    }
}

impl Client {
    /// Receives and sends what is possible without waiting.
    fn turn(&mut self, server: &ServerHandle) -> (Turn, Command) {
        let mut command = Command::None;
        if self.answer.is_none() {
            match self.receive() {
                Ok(false) => return (Turn::Waits, command),
                Err(_) => return (Turn::Done, command),
                Ok(true) => {}
            }
            let is_local = self.socket.family() == AF_UNIX;
            let (answer, requested) = answer(&self.request, server, is_local);
            self.answer = Some((answer, 0));
            command = requested;
        }
        (self.send(), command)
    }

    /// Returns whether the head of the request is complete, or too long.
    fn receive(&mut self) -> io::Result<bool> {
        let mut part = [0; 1024];
        loop {
            match self.socket.recv_into_nowait(&mut part) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(received) => self.request.extend_from_slice(&part[..received]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            if self.request.len() > MAX_REQUEST || has_head(&self.request) {
                return Ok(true);
            }
        }
    }

    /// Sends the answer. Then it waits for the client's end of file: closing with unread input would
    /// reset the connection, and the client could lose the answer.
    fn send(&mut self) -> Turn {
        let Some((answer, sent)) = &mut self.answer else { return Turn::Waits };
        while *sent < answer.len() {
            match StreamSocket::send(&*self.socket, &answer[*sent..]) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Waits,
                Err(_) => return Turn::Done,
            }
            if *sent == answer.len() && self.socket.shutdown(SHUT_WR).is_err() {
                return Turn::Done;
            }
        }
        let mut rest = [0; 1024];
        for _ in 0..MAX_READS {
            match self.socket.recv_into_nowait(&mut rest) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                _ => return Turn::Done,
            }
        }
        // A client that goes on sending is ended by its limit.
        Turn::Waits
    }
}

/// Returns whether the head of a request is complete, and not too long.
fn has_head(request: &[u8]) -> bool {
    let most = &request[..request.len().min(MAX_REQUEST)];
    let ends_with = |end: &[u8]| most.windows(end.len()).any(|part| part == end);
    ends_with(b"\r\n\r\n") || ends_with(b"\n\n")
}

/// Returns the answer to a request, and what else it requests.
fn answer(request: &[u8], server: &ServerHandle, is_local: bool) -> (Vec<u8>, Command) {
    if request.len() > MAX_REQUEST && !has_head(request) {
        let status = "431 Request Header Fields Too Large";
        return (response(status, "text/plain", "the head is too long\n", true), Command::None);
    }
    let line = request.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some("HTTP/1.0" | "HTTP/1.1"), None) =
        (method, target, version, words.next())
    else {
        return (response("400 Bad Request", "text/plain", "not an HTTP/1 request\n", true), Command::None);
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let text =
        |status: &str, body: &str| (response(status, "text/plain", body, method != "HEAD"), Command::None);
    match (method, path) {
        ("GET" | "HEAD", "/metrics") => {
            let body = server.to_openmetrics();
            (response("200 OK", METRICS_TYPE, &body, method == "GET"), Command::None)
        }
        ("GET" | "HEAD", "/ready") => match server.state() {
            ServerState::Ready => text("200 OK", "ready\n"),
            ServerState::LameDuck => text("503 Service Unavailable", "lame duck\n"),
            ServerState::Draining => text("503 Service Unavailable", "draining\n"),
            ServerState::Stopped => text("503 Service Unavailable", "stopped\n"),
        },
        ("GET" | "HEAD", "/live") => text("200 OK", "live\n"),
        ("GET" | "HEAD", "/") => text("200 OK", INDEX),
        ("POST", "/lame-duck" | "/stop") if !is_local => {
            text("403 Forbidden", "commands are accepted on a Unix socket only\n")
        }
        ("POST", "/lame-duck") => (text("200 OK", "lame duck\n").0, Command::LameDuck),
        ("POST", "/stop") => {
            let limit = match query.strip_prefix("limit=") {
                // More seconds than a time can have would panic.
                Some(limit) => limit.parse::<u32>().ok(),
                None => query.is_empty().then_some(DRAIN_LIMIT),
            };
            match limit {
                Some(limit) => {
                    (text("200 OK", "draining\n").0, Command::Stop(Duration::from_secs(limit.into())))
                }
                None => text("400 Bad Request", "the query is empty, or limit= and a number of seconds\n"),
            }
        }
        (_, "/" | "/metrics" | "/ready" | "/live" | "/lame-duck" | "/stop") => {
            text("405 Method Not Allowed", "see GET /\n")
        }
        _ => text("404 Not Found", INDEX),
    }
}

fn response(status: &str, kind: &str, body: &str, has_body: bool) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    );
    [head.as_bytes(), if has_body { body.as_bytes() } else { b"" }].concat()
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    #[cfg(unix)]
    use crate::os::bound_path::{DirEntry, before_next_removal};

    /// Returns an administrative listener on the loopback interface, and its socket.
    fn admin(server: &ServerHandle, socket: Socket) -> (Admin, Arc<Socket>) {
        let socket = Arc::new(socket);
        let bound = Arc::clone(&socket);
        let bind = move || Ok(AdminSocket { path: None, socket: Arc::clone(&bound) });
        (Admin::new(Box::new(bind), false, server).unwrap(), socket)
    }

    fn listener() -> Socket {
        let socket = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
        socket.bind(("127.0.0.1", 0)).unwrap();
        socket.listen(64).unwrap();
        socket.setblocking(false).unwrap();
        socket
    }

    fn connect(listener: &Socket) -> Socket {
        let port = listener.getsockname().unwrap().port().unwrap();
        sock::create_connection(("127.0.0.1", port)).unwrap()
    }

    /// A path in a directory of its own, which is removed with it.
    #[cfg(unix)]
    struct Path(std::path::PathBuf);

    #[cfg(unix)]
    impl Path {
        fn new(name: &str) -> Path {
            let folder = std::env::temp_dir().join(format!("sockserver-{name}-{}", std::process::id()));
            std::fs::create_dir(&folder).unwrap();
            Path(folder.join("admin"))
        }

        fn bind(&self) -> io::Result<AdminSocket> {
            let socket = Socket::new(AF_UNIX, sock::SOCK_STREAM, 0)?;
            socket.bind(&self.0)?;
            socket.listen(1)?;
            socket.setblocking(false)?;
            let entry = DirEntry::of(&socket.getsockname()?)?.unwrap();
            Ok(AdminSocket { path: entry.bound(None)?, socket: Arc::new(socket) })
        }
    }

    #[cfg(unix)]
    impl Drop for Path {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
        }
    }

    /// The inode number may be reused when the socket is closed, by the listener of a successor.
    #[test]
    #[cfg(unix)]
    fn the_path_is_removed_before_the_listener_is_closed() {
        let server = ServerHandle::with_defaults().unwrap();
        let path = Arc::new(Path::new("order"));
        let ends: [fn(Admin, &ServerHandle); 2] =
            [|mut admin, server| admin.close(server), |admin, _| drop(admin)];
        for end in ends {
            let binds = Arc::clone(&path);
            let admin = Admin::new(Box::new(move || binds.bind()), false, &server).unwrap();
            let (sender, accepts) = std::sync::mpsc::channel();
            let connects = Arc::clone(&path);
            before_next_removal(move || {
                let client = Socket::new(AF_UNIX, sock::SOCK_STREAM, 0).unwrap();
                sender.send(client.connect(&connects.0).is_ok()).unwrap();
            });
            end(admin, &server);
            assert_eq!(accepts.try_recv(), Ok(true), "the listener was closed first");
            assert!(!path.0.exists());
        }
    }

    #[test]
    #[cfg(unix)]
    fn the_process_that_serves_removes_the_path() {
        let server = ServerHandle::with_defaults().unwrap();
        let path = Arc::new(Path::new("taken"));
        let is_taken_over = |admin: &Admin| {
            let path = admin.listener.as_ref().and_then(|listener| listener.path.as_ref());
            path.map(BoundPath::is_taken_over)
        };
        let (binds, is_free) = (Arc::clone(&path), Arc::new(AtomicBool::new(true)));
        let free = Arc::clone(&is_free);
        let bind = move || match free.load(Ordering::SeqCst) {
            true => binds.bind(),
            false => Err(ErrorKind::AddrInUse.into()),
        };
        let mut admin = Admin::new(Box::new(bind.clone()), false, &server).unwrap();
        assert_eq!(is_taken_over(&admin), Some(false), "another process may serve");
        admin.ready(&server);
        assert_eq!(is_taken_over(&admin), Some(true));
        drop(admin);
        // It is bound when the loop runs already.
        is_free.store(false, Ordering::SeqCst);
        let mut admin = Admin::new(Box::new(bind), true, &server).unwrap();
        admin.ready(&server);
        is_free.store(true, Ordering::SeqCst);
        let until = Instant::now() + Duration::from_secs(20);
        while is_taken_over(&admin).is_none() {
            assert!(Instant::now() < until, "it was not bound");
            admin.run(&server);
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(is_taken_over(&admin), Some(true));
    }

    /// A client that sends without end would keep the loop of a server that forks from accepting.
    #[test]
    fn a_turn_ends_while_a_client_goes_on_sending() {
        let (socket, peer) = sock::socketpair().unwrap();
        peer.sendall(&[b'x'; 32 * 1024]).unwrap();
        // If all was read, the last receive must fail and not wait.
        socket.settimeout(CLIENT_LIMIT).unwrap();
        let answer = Some((Vec::new(), 0));
        let due = Instant::now() + CLIENT_LIMIT;
        let mut client = Client { socket: Arc::new(socket), request: Vec::new(), answer, due };
        assert!(matches!(client.send(), Turn::Waits));
        let mut rest = [0; 1024];
        assert_eq!(client.socket.recv_into(&mut rest).unwrap(), rest.len(), "all was read in one turn");
    }

    #[test]
    fn a_listener_that_cannot_accept_is_not_waited_for() {
        let server = ServerHandle::with_defaults().unwrap();
        // accept(2) fails without listen(2).
        let socket = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
        socket.bind(("127.0.0.1", 0)).unwrap();
        let (mut admin, socket) = admin(&server, socket);
        admin.run(&server);
        let mut sockets = Vec::new();
        let due = admin.waits_for(&mut sockets).expect("it would not accept again");
        assert!(sockets.is_empty());
        socket.listen(1).unwrap();
        socket.setblocking(false).unwrap();
        let _client = connect(&socket);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        admin.run(&server);
        assert_eq!(admin.clients.len(), 1);
        admin.waits_for(&mut sockets);
        assert!(Arc::ptr_eq(&sockets[0], &socket));
    }

    #[test]
    fn silent_clients_delay_no_readiness_check() {
        let server = ServerHandle::with_defaults().unwrap();
        let (mut admin, socket) = admin(&server, listener());
        let _silent: Vec<Socket> = (0..MAX_CLIENTS + 8).map(|_| connect(&socket)).collect();
        let client = connect(&socket);
        client.sendall(b"GET /ready HTTP/1.1\r\n\r\n").unwrap();
        client.setblocking(false).unwrap();
        // Far less than the limit of the silent clients.
        let until = Instant::now() + CLIENT_LIMIT / 2;
        let answer = loop {
            admin.run(&server);
            match client.recv(1000) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                answer => break answer.unwrap(),
            }
            assert!(Instant::now() < until, "it is not answered");
        };
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
        assert!(admin.clients.len() <= MAX_CLIENTS);
    }

    #[test]
    #[cfg(unix)]
    fn the_hook_of_the_lame_duck_is_called_without_a_lock() {
        let server = ServerHandle::with_defaults().unwrap();
        let (mut admin, _) = admin(&server, listener());
        let (socket, client) = sock::socketpair().unwrap();
        client.sendall(b"POST /lame-duck HTTP/1.1\r\n\r\n").unwrap();
        let due = Instant::now() + CLIENT_LIMIT;
        admin.clients.push(Client { socket: Arc::new(socket), request: Vec::new(), answer: None, due });
        server.duties().add(Box::new(admin));
        let (sender, states) = std::sync::mpsc::channel();
        let handle = server.clone();
        server.state_cell().set_hook(Box::new(move |state| {
            let _ = sender.send((state, handle.duties().are_locked()));
        }));
        server.duties().run(&server);
        assert_eq!(states.try_recv(), Ok((ServerState::LameDuck, false)));
    }

    fn ask(request: &str, is_local: bool) -> (String, Command) {
        let server = ServerHandle::with_defaults().unwrap();
        let (answer, command) = answer(request.as_bytes(), &server, is_local);
        let answer = String::from_utf8(answer).unwrap();
        (answer.split("\r\n").next().unwrap()[9..12].to_owned(), command)
    }

    #[test]
    fn commands_are_accepted_on_a_unix_socket_only() {
        let stop = "POST /stop?limit=7 HTTP/1.1\r\n\r\n";
        assert_eq!(ask(stop, false), ("403".to_owned(), Command::None));
        assert_eq!(ask(stop, true), ("200".to_owned(), Command::Stop(Duration::from_secs(7))));
        assert_eq!(ask("POST /stop HTTP/1.1\r\n\r\n", true).1, Command::Stop(Duration::from_secs(30)));
        // The last one is more than any time can have.
        for query in ["limit=-1", "x=1", "limit=1&x=1", "limit", "limit=18446744073709551615"] {
            let stop = format!("POST /stop?{query} HTTP/1.1\r\n\r\n");
            assert_eq!(ask(&stop, true), ("400".to_owned(), Command::None), "{query}");
        }
        assert_eq!(ask("GET /stop HTTP/1.1\r\n\r\n", true), ("405".to_owned(), Command::None));
        let lame_duck = "POST /lame-duck HTTP/1.0\r\n\r\n";
        assert_eq!(ask(lame_duck, false), ("403".to_owned(), Command::None));
        assert_eq!(ask(lame_duck, true), ("200".to_owned(), Command::LameDuck));
    }

    #[test]
    fn malformed_requests_are_refused() {
        for request in
            ["", "\n\n", "GET\n\n", "GET /\n\n", "GET / HTTP/2\n\n", "GET / HTTP/1.1 x\n\n", "\u{fffd}"]
        {
            assert_eq!(ask(request, true), ("400".to_owned(), Command::None), "{request:?}");
        }
        assert_eq!(ask("GET /other HTTP/1.1\r\n\r\n", true).0, "404");
    }

    #[test]
    fn a_head_that_is_too_long_is_refused() {
        let line = "POST /stop HTTP/1.1\r\nX: ";
        let head = |length: usize| format!("{line}{}\r\n\r\n", "x".repeat(length - line.len() - 4));
        assert_eq!(ask(&head(MAX_REQUEST + 1), true), ("431".to_owned(), Command::None));
        let longest = head(MAX_REQUEST) + &"a body".repeat(1000);
        assert_eq!(ask(&longest, true).0, "200");
    }

    #[test]
    fn the_answer_to_head_has_no_body() {
        let server = ServerHandle::with_defaults().unwrap();
        let (answer, _) = answer(b"HEAD /ready HTTP/1.1\r\n\r\n", &server, false);
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"\r\n\r\n"));
    }
}
