//! The promise: SIGTERM ends one of the managed workers after its request, SIGHUP replaces all of them one
//! by one, and SIGTTIN and SIGTTOU change their number. No client is lost.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, getpid, kill_process, test_kill_process};
use sock::{AF_UNIX, Address, MSG_DONTWAIT, SOCK_DGRAM, Socket};
use sockserver::testing::LeakCheck;
use sockserver::{PreforkTCPServer, ServerHandle, ServerHooks, ServerState, StreamContext, handler_fn};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to};

pub(crate) const TESTS: &[Test] = &[
    ("sigterm_ends_a_managed_worker_after_its_request", sigterm_ends_a_worker_after_its_request),
    ("sighup_replaces_the_workers_one_by_one", || sighup_replaces_the_workers(3, 100)),
    ("sighup_replaces_workers_without_a_spare_permit", || sighup_replaces_the_workers(2, 2)),
    ("a_reload_that_fails_keeps_the_workers", a_reload_that_fails_keeps_the_workers),
    ("sigttin_and_sigttou_change_the_number_of_workers", sigttin_and_sigttou_change_the_number),
    ("the_signals_of_workers_have_their_default_effect_after_close", default_effect_after_close),
];

/// Sends what happens, with the process, to the test.
struct Record {
    events: Socket,
    fails: bool,
}

impl Record {
    fn send(&self, event: &str) {
        self.events.send(format!("{} {event}", getpid().as_raw_pid()).as_bytes()).unwrap();
    }
}

impl ServerHooks for Record {
    fn start_worker(&self) -> io::Result<()> {
        self.send("start");
        Ok(())
    }

    fn state_changed(&self, state: ServerState) {
        if state == ServerState::Draining {
            self.send("end");
        }
    }

    fn reload(&self) -> io::Result<()> {
        self.send("reload");
        if self.fails { Err(io::Error::other("planned error")) } else { Ok(()) }
    }
}

/// Answers each line with the process, until the client or the server ends the connection.
fn answer_pid(cx: &mut StreamContext<'_>) -> io::Result<()> {
    cx.close_connection = cx.rfile.read_line(&mut String::new())? == 0;
    match cx.close_connection {
        true => Ok(()),
        false => write!(cx.wfile, "{}", getpid().as_raw_pid()),
    }
}

/// The test's view of a server, from its accept loop: a process with threads does not fork.
struct Driver {
    address: Arc<Mutex<Option<Address>>>,
    events: Socket,
    seen: Vec<(i32, String)>,
    clients: Vec<Socket>,
}

impl Driver {
    /// Receives what has happened since.
    fn look(&mut self) {
        while let Ok(event) = self.events.recv_with_flags(100, MSG_DONTWAIT) {
            let event = String::from_utf8(event).unwrap();
            let (pid, what) = event.split_once(' ').unwrap();
            self.seen.push((pid.parse().unwrap(), what.to_owned()));
        }
    }

    fn pids(&self, what: &str) -> Vec<i32> {
        self.seen.iter().filter(|(_, seen)| seen == what).map(|(pid, _)| *pid).collect()
    }

    fn ask(&mut self) {
        let client = connect_to(self.address.lock().as_ref().unwrap());
        client.sendall(b"?\n").unwrap();
        client.setblocking(false).unwrap();
        self.clients.push(client);
    }

    /// Returns the answer that the client has received, if there is one.
    fn answer(&self, client: usize) -> Option<i32> {
        let answer = self.clients[client].recv_with_flags(100, MSG_DONTWAIT).ok()?;
        Some(String::from_utf8(answer).unwrap().parse().unwrap_or_default())
    }
}

/// Serves until `step` has returned true. It is called with its number, which grows when it returns
/// `Some(false)`.
fn drive(
    workers: usize,
    max_connections: usize,
    fails: bool,
    step: impl Fn(usize, &mut Driver) -> Option<bool> + Send + Sync + 'static,
) -> Vec<(i32, String)> {
    let check = LeakCheck::begin();
    let (receiver, events) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    let address = Arc::new(Mutex::new(None));
    let driver = Arc::new(Mutex::new(Driver {
        address: Arc::clone(&address),
        events: receiver,
        seen: Vec::new(),
        clients: Vec::new(),
    }));
    let (number, until) = (AtomicUsize::new(0), Instant::now() + LIMIT);
    let (driving, late) = (Arc::clone(&driver), Arc::new(AtomicBool::new(false)));
    let is_late = Arc::clone(&late);
    let actions = move |handle: &ServerHandle| {
        let mut driver = driving.lock();
        driver.look();
        let done = step(number.load(Ordering::Relaxed), &mut driver);
        if done == Some(false) {
            number.fetch_add(1, Ordering::Relaxed);
        }
        late.fetch_or(Instant::now() >= until, Ordering::Relaxed);
        if done == Some(true) || Instant::now() >= until {
            handle.request_shutdown().unwrap();
        }
    };
    let server = PreforkTCPServer::builder(handler_fn(answer_pid))
        .workers(workers)
        .worker_class(crate::worker_class())
        .max_connections(max_connections)
        .hooks(Record { events, fails })
        .poll_interval(Duration::from_millis(2))
        .drain_on_signals(LIMIT)
        .manage_workers_on_signals()
        .service_actions(actions)
        .bind(LOOPBACK)
        .unwrap();
    *address.lock() = Some(server.server_address().clone());
    server.serve_forever().unwrap();
    let stats = server.stats();
    server.server_close().unwrap();
    let mut driver = driver.lock();
    driver.look();
    assert!(!is_late.load(Ordering::Relaxed), "too late, after {:?}", driver.seen);
    assert_eq!((stats.failed, stats.aborted), (0, 0), "{stats}");
    let seen = std::mem::take(&mut driver.seen);
    driver.clients.clear();
    drop((driver, check));
    seen
}

fn raise(signal: Signal) {
    kill_process(getpid(), signal).unwrap();
}

fn is_alive(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
}

fn sigterm_ends_a_worker_after_its_request() {
    let worker = Mutex::new(0);
    let seen = drive(1, 100, false, move |step, driver| {
        let mut worker = worker.lock();
        match step {
            0 => {
                driver.ask();
                Some(false)
            }
            1 => {
                *worker = driver.answer(0)?;
                kill_process(Pid::from_raw(*worker).unwrap(), Signal::TERM).unwrap();
                Some(false)
            }
            2 => {
                // It has closed the idle connection, and exits.
                (driver.pids("end") == [*worker] && driver.answer(0)? == 0).then(|| driver.ask())?;
                Some(false)
            }
            _ => {
                let other = driver.answer(1)?;
                assert!(other != *worker && other != 0);
                Some(true)
            }
        }
    });
    let starts = seen.iter().filter(|(_, what)| what == "start").count();
    assert_eq!(starts, 2, "{seen:?}");
}

fn sighup_replaces_the_workers(workers: usize, max_connections: usize) {
    let seen = drive(workers, max_connections, false, move |step, driver| match step {
        0 => {
            (driver.pids("start").len() == workers).then(|| raise(Signal::HUP))?;
            Some(false)
        }
        1 => {
            let (starts, ends) = (driver.pids("start"), driver.pids("end"));
            let is_replaced = starts.len() == 2 * workers && ends.len() == workers;
            (is_replaced && !ends.iter().any(|pid| is_alive(*pid))).then(|| driver.ask())?;
            Some(false)
        }
        _ => {
            let answer = driver.answer(0)?;
            assert!(driver.pids("start")[workers..].contains(&answer));
            Some(true)
        }
    });
    let events: Vec<&str> = seen.iter().map(|(_, what)| &**what).collect();
    let pair = if max_connections > workers { ["start", "end"] } else { ["end", "start"] };
    let expected = [vec!["start"; workers], vec!["reload"], pair.repeat(workers)].concat();
    assert_eq!(events[..expected.len()], expected[..], "{seen:?}");
    let pids = |what: &'static str| seen.iter().filter(move |event| event.1 == what).map(|event| event.0);
    let mut old: Vec<i32> = pids("start").take(workers).collect();
    let mut ended: Vec<i32> = pids("end").take(workers).collect();
    old.sort_unstable();
    ended.sort_unstable();
    assert_eq!(old, ended);
}

fn a_reload_that_fails_keeps_the_workers() {
    let first = Mutex::new(0);
    let seen = drive(1, 100, true, move |step, driver| match step {
        0 => {
            driver.ask();
            Some(false)
        }
        1 => {
            *first.lock() = driver.answer(0)?;
            driver.clients.clear();
            raise(Signal::HUP);
            Some(false)
        }
        2 => {
            (driver.pids("reload").len() == 1).then(|| driver.ask())?;
            Some(false)
        }
        _ => {
            assert_eq!(driver.answer(0)?, *first.lock());
            Some(true)
        }
    });
    assert_eq!(seen.iter().filter(|(_, what)| what == "start").count(), 1, "{seen:?}");
}

fn sigttin_and_sigttou_change_the_number() {
    let seen = drive(1, 100, false, move |step, driver| {
        let (starts, ends) = (driver.pids("start"), driver.pids("end"));
        match step {
            0 => (starts.len() == 1).then(|| raise(Signal::TTIN))?,
            1 => (starts.len() == 2).then(|| raise(Signal::TTOU))?,
            // The last worker stays.
            2 => (ends.len() == 1 && !is_alive(ends[0])).then(|| raise(Signal::TTOU))?,
            3 => driver.ask(),
            _ => {
                assert_eq!(driver.answer(0)?, starts[0]);
                return Some(true);
            }
        }
        Some(false)
    });
    let starts: Vec<_> = seen.iter().filter(|(_, what)| what == "start").collect();
    let first_end = seen.iter().find(|(_, what)| what == "end").unwrap();
    assert_eq!((starts.len(), first_end.0), (2, starts[1].0), "the youngest one leaves: {seen:?}");
}

fn default_effect_after_close() {
    let server = PreforkTCPServer::builder(handler_fn(|_| Ok(())))
        .manage_workers_on_signals()
        .bind(LOOPBACK)
        .unwrap();
    // It has no effect before the server serves, and is lost with the server.
    raise(Signal::HUP);
    drop(server);
    let test = std::env::current_exe().unwrap();
    let mut child =
        std::process::Command::new(test).args(["--alone", "closed_managed_server"]).spawn().unwrap();
    let status = child.wait().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(Signal::HUP.as_raw()), "{status}");
}

/// Programs that tests start.
pub(crate) const HELPERS: &[Test] = &[("closed_managed_server", closed_managed_server)];

fn closed_managed_server() {
    drop(
        PreforkTCPServer::builder(handler_fn(|_| Ok(())))
            .manage_workers_on_signals()
            .bind(LOOPBACK)
            .unwrap(),
    );
    raise(Signal::HUP);
}
