//! A worker process of the prefork model.

use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sock::{Address, MSG_DONTWAIT, MSG_PEEK, POLLIN, Poll, SHUT_RDWR, Socket, poll, socketpair};

use crate::accept::acceptor::{AcceptGate, Acceptor};
use crate::accept::mixin::AcceptLoop;
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::scoreboard::Slot;
use crate::limits::clock::NEVER;
use crate::limits::drain_report::{AbortedRequest, DrainReport};
use crate::models::accept_worker::AcceptWorker;
use crate::os::accept_interrupt::{AcceptInterrupter, while_accepting};
use crate::os::process;
use crate::request::core::{Core, HandlerFactory};

/// The exit status of a worker whose listeners are all closed or broken.
pub(crate) const LISTENER_GONE: i32 = 3;

/// How much longer than its limit a worker may take to end its drain.
pub(crate) const GRACE: Duration = Duration::from_millis(200);

/// How long after the shutdown of its listener a worker waits for the command to stop.
const SHORT_WAIT: Duration = Duration::from_millis(250);

/// How often a worker that waits for several listeners tries to accept without an event. The worker
/// that was woken for a client may have been killed or stopped before it could accept. A worker that
/// waits in accept(2) has the client when it is woken.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Returns the listener in which workers wait: the only one, if it is for connections.
fn blocking_listener<'a>(accept_loop: &'a AcceptLoop<'_>) -> Option<&'a Socket> {
    match (&*accept_loop.core().service, accept_loop.listeners()) {
        (HandlerFactory::Stream(_), [listener]) => Some(listener),
        _ => None,
    }
}

/// Sets whether accept(2) of the workers blocks.
pub(crate) fn set_blocking_accept(accept_loop: &AcceptLoop<'_>, blocks: bool) -> io::Result<()> {
    blocking_listener(accept_loop).map_or(Ok(()), |listener| listener.setblocking(blocks))
}

/// Serves requests until the stop, or until `quota` of them are served. Returns the exit status.
pub(crate) fn run(
    accept_loop: &AcceptLoop<'_>,
    control: Socket,
    slot: Slot,
    quota: Option<u64>,
    heartbeat: Duration,
) -> i32 {
    match serve_until_stopped(accept_loop, control, slot, quota, heartbeat) {
        Ok(true) => 0,
        Ok(false) => LISTENER_GONE,
        Err(error) => {
            log::error!("worker: {error}");
            1
        }
    }
}

/// Returns false if all listeners are closed or broken.
fn serve_until_stopped(
    accept_loop: &AcceptLoop<'_>,
    control: Socket,
    slot: Slot,
    quota: Option<u64>,
    heartbeat: Duration,
) -> io::Result<bool> {
    let core = Arc::new(Core::for_worker(accept_loop.core())?);
    core.hooks.start_worker()?;
    core.registry().set_own_slot(slot.clone());
    let (stopping, stop) = socketpair()?;
    let acceptor = Acceptor::new(&core, accept_loop.listeners(), accept_loop.settings());
    let (gate, stop) = (AcceptGate::new(acceptor), Arc::new(stop));
    let worker = match blocking_listener(accept_loop) {
        Some(_) => AcceptWorker::blocking(gate, stop),
        None => AcceptWorker::new(gate, stop)?,
    };
    let serving = Arc::new(AtomicBool::new(true));
    let orders = ControlThread {
        control,
        handle: core.handle.clone(),
        listeners: accept_loop.listeners().to_vec(),
        stopping,
        serving: Arc::clone(&serving),
        slot: slot.clone(),
        caller: AcceptInterrupter::of_this_thread()?,
    };
    let obeying = move || orders.run_control(heartbeat / 3);
    let control = thread::Builder::new().name("sockserver-control".to_owned()).spawn(obeying)?;
    slot.start();
    let served = serve(&worker, &core.handle, &slot, quota);
    serving.store(false, Ordering::Release);
    if core.registry().is_draining() {
        // It ends with the drain, which it reports.
        let _ = control.join();
    }
    Ok(served)
}

fn serve(worker: &AcceptWorker, handle: &ServerHandle, slot: &Slot, quota: Option<u64>) -> bool {
    let most = handle.registry().limits().max_connections_per_ip;
    let mut left = quota.unwrap_or(u64::MAX);
    while left > 0 && !handle.is_stopping() {
        match while_accepting(|| worker.next(Some(POLL_INTERVAL))) {
            Ok(None) => {}
            Ok(Some(job)) => {
                slot.set_client(job.client_address());
                if most.is_some_and(|most| slot.exceeds_per_ip_limit(most)) {
                    slot.clear_client();
                    log::debug!("request from {} refused: too many connections", job.client_address());
                    job.refuse_with_hook();
                    continue;
                }
                worker.serve(job);
                slot.clear_client();
                left -= 1;
            }
            // A draining parent has shut the listener down, or a worker whose parent has died.
            // The command follows.
            Err(_) if stop_requested(handle) => {}
            Err(error) => {
                log::error!("worker: {error}");
                return false;
            }
        }
    }
    true
}

fn stop_requested(handle: &ServerHandle) -> bool {
    let until = Instant::now() + SHORT_WAIT;
    while !handle.is_stopping() && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    handle.is_stopping()
}

/// The thread beside the one that serves.
struct ControlThread {
    /// The socket to the parent.
    control: Socket,
    handle: ServerHandle,
    listeners: Vec<Arc<Socket>>,
    /// Ends the wait for clients.
    stopping: Socket,
    serving: Arc<AtomicBool>,
    slot: Slot,
    caller: AcceptInterrupter,
}

impl ControlThread {
    /// Records heartbeats until a command comes, and carries it out. End of file means that the parent
    /// has died.
    fn run_control(&self, look: Duration) {
        let ControlThread { control, handle, serving, .. } = self;
        self.heartbeat_until_command(look);
        let mut lines = control.makefile_rb().lines();
        let limit = loop {
            let line = lines.next().and_then(Result::ok);
            handle.stop_local();
            if line.is_none() {
                // The parent has died. Its successor needs the address, also while the last
                // request here runs.
                self.listeners.iter().for_each(|listener| drop(listener.shutdown(SHUT_RDWR)));
            }
            let _ = self.stopping.shutdown(SHUT_RDWR);
            if self.caller.interrupt_accept() {
                self.slot.stop();
            }
            match line.as_deref() {
                Some("stop") => {}
                Some(line) => break line.strip_prefix("drain ").and_then(|limit| limit.parse().ok()),
                None => break handle.close_timeout().map(|limit| limit.as_millis() as u64),
            }
        };
        let limit = Duration::from_millis(limit.unwrap_or(u64::MAX));
        handle.registry().begin_drain();
        let still_serves = || serving.load(Ordering::Acquire);
        // Another command means that there is no time left.
        let hurry = || {
            let more = control.recv_with_flags(1, MSG_PEEK | MSG_DONTWAIT);
            more.is_ok_and(|word| !word.is_empty())
        };
        let report = handle.registry().drain(limit, &hurry, &|| {}, &still_serves);
        let _ = control.sendall(encode_report(&report).as_bytes());
        if report.still_running > 0 {
            // A handler does not return, and nothing else is left to do.
            process::_exit(1);
        }
    }

    /// Records heartbeats. A stopped process records none. A process whose handler does not return
    /// records that it is stuck.
    fn heartbeat_until_command(&self, look: Duration) {
        let limits = self.handle.registry().limits();
        let patience = if limits.wrap_timeout.is_some() { Some(look) } else { limits.request_timeout };
        let mut over: Option<Instant> = None;
        loop {
            match poll(&mut [Poll::new(&self.control, POLLIN)], Some(look)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) => {}
                _ => return,
            }
            over = self.is_over().then(|| over.unwrap_or_else(Instant::now));
            let since = over.map_or(Duration::ZERO, |over| over.elapsed());
            if over.is_some() && patience.is_some_and(|patience| since >= patience.mul_f32(0.9)) {
                self.slot.set_stuck();
            } else {
                self.slot.heartbeat();
            }
        }
    }

    /// Returns whether the deadline of the current request has expired.
    fn is_over(&self) -> bool {
        let registry = self.handle.registry();
        if registry.limits().request_timeout.is_none() {
            return false;
        }
        let stats = registry.stats();
        // The request may have ended in between.
        stats.in_flight > stats.idle && registry.expire_overdue() == NEVER && registry.stats() == stats
    }
}

/// Encodes `finished idle still_running`, and a line for each aborted request.
fn encode_report(report: &DrainReport) -> String {
    let mut text = format!("{} {} {}\n", report.finished, report.idle, report.still_running);
    for AbortedRequest { client_address, age } in &report.aborted {
        text += &format!("{} {client_address}\n", age.as_millis());
    }
    text
}

/// Adds the report of a worker. Returns whether there is one.
pub(crate) fn read_report(control: &Socket, report: &mut DrainReport) -> bool {
    let mut text = Vec::new();
    while let Ok(data @ [_, ..]) = control.recv_with_flags(4096, MSG_DONTWAIT).as_deref() {
        text.extend_from_slice(data);
    }
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines();
    let numbers: Vec<u64> =
        lines.next().unwrap_or_default().split(' ').filter_map(|number| number.parse().ok()).collect();
    let [finished, idle, left] = numbers[..] else { return false };
    report.finished += finished;
    report.idle += idle;
    report.still_running += left;
    for line in lines {
        let Some((age, address)) = line.split_once(' ') else { continue };
        let client_address = address.parse::<SocketAddr>().map_or(Address::None, Address::from);
        let age = Duration::from_millis(age.parse().unwrap_or_default());
        report.aborted.push(AbortedRequest { client_address, age });
    }
    true
}
