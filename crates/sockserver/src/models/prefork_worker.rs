//! A worker process of the prefork model.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sock::{AF_UNIX, Address, MSG_DONTWAIT, MSG_PEEK, POLLIN, Poll, SHUT_RDWR, Socket, ToAddress};
use sock::{UnixAddress, poll};

use crate::accept::acceptor::{AcceptGate, Acceptor};
use crate::accept::mixin::AcceptLoop;
use crate::lifecycle::scoreboard::{Scoreboard, Slot};
use crate::lifecycle::signals;
use crate::lifecycle::state::ServerState;
use crate::limits::clock::NEVER;
use crate::limits::drain_report::{AbortedRequest, DrainReport};
use crate::models::accept_worker::AcceptWorker;
use crate::models::worker_class::{LEAVES, ModelLoop, WorkerSettings, stop_requested};
use crate::models::worker_exit;
use crate::os::accept_interrupt::{AcceptInterrupter, while_accepting};
use crate::os::guard::{SafeDisplay, discard, guard};
use crate::os::interrupt::recv_uninterrupted;
use crate::os::log::errno_field;
use crate::os::pair::pair;
use crate::os::process;
use crate::os::shortage;
use crate::request::core::{Core, HandlerFactory};

/// The exit status of a worker whose listeners are all closed or broken.
pub(crate) const LISTENER_GONE: i32 = 3;

/// How much longer than its limit a worker may take to end its drain.
pub(crate) const GRACE: Duration = Duration::from_millis(200);

/// How often a worker that waits for several listeners tries to accept without an event. The worker
/// that was woken for a client may have been killed or stopped before it could accept. A worker that
/// waits in accept(2) has the client when it is woken.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Where the list of aborted requests in the report of a worker ends. The parent receives it when the
/// worker has exited, so the buffer of the socket has to hold the report. Linux: 208 KiB.
const MAX_REPORT: usize = 64 * 1024;

/// A worker with corrupted memory can have any number of requests.
pub(super) const MAX_UNKNOWN: usize = 1 << 16;

/// How long a worker that ends alone leaves idle connections open at least, for requests that are on
/// their way.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// How often a worker that ends looks whether its last connection has ended.
const RETIRE_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Returns the listener in which workers wait: the only one, if it is for connections. A listener
/// that other processes use stays non-blocking, because they would block too.
fn blocking_listener<'a>(accept_loop: &'a AcceptLoop<'_>) -> Option<&'a Socket> {
    if accept_loop.core().handle.shares_listeners() {
        return None;
    }
    match (&*accept_loop.core().service, accept_loop.listeners()) {
        (HandlerFactory::Stream(_), [listener]) => Some(listener),
        _ => None,
    }
}

/// Sets whether accept(2) of the workers blocks.
pub(crate) fn set_blocking_accept(accept_loop: &AcceptLoop<'_>, blocks: bool) -> io::Result<()> {
    blocking_listener(accept_loop).map_or(Ok(()), |listener| listener.setblocking(blocks))
}

/// What the parent has prepared for a worker.
pub(crate) struct NewWorker<'a> {
    /// The socket to the parent.
    pub(crate) control: Socket,
    pub(crate) slot: Slot,
    /// How many requests it serves.
    pub(crate) quota: Option<u64>,
    pub(crate) heartbeat: Duration,
    /// The clients that a drain of the parent has accepted, which are then the only ones.
    pub(crate) clients: Vec<(Socket, Address)>,
    pub(crate) settings: &'a WorkerSettings,
}

/// Serves requests until the stop, or until its quota of them is served, or only its clients. Then
/// the process exits.
pub(crate) fn run(accept_loop: &AcceptLoop<'_>, board: &Arc<Scoreboard>, worker: NewWorker<'_>) -> ! {
    let slot = worker.slot.clone();
    let started = guard(|| {
        let core = Arc::new(Core::for_worker(accept_loop.core(), worker.quota)?);
        core.hooks.start_worker()?;
        Ok(core)
    });
    let core = match started {
        Ok(Ok(core)) => core,
        failed => {
            let status = exit_status(failed.map(|failed: io::Result<_>| failed.map(|_| false)));
            let _ = io::stdout().flush();
            slot.set_exit_status(status);
            process::_exit(status)
        }
    };
    let served = guard(|| serve_until_stopped(&core, accept_loop, board, worker));
    worker_exit::exit(&core, &slot, exit_status(served))
}

fn exit_status(served: Result<io::Result<bool>, String>) -> i32 {
    match served {
        Ok(Ok(true)) => 0,
        Ok(Ok(false)) => LISTENER_GONE,
        Ok(Err(error)) => {
            log::error!(
                pid = std::process::id(), errno = errno_field(&error);
                "worker failed: {}", SafeDisplay(&error)
            );
            discard(error);
            1
        }
        Err(message) => {
            log::error!(pid = std::process::id(); "worker panicked: {message}");
            101
        }
    }
}

/// Returns false if all listeners are closed or broken.
fn serve_until_stopped(
    core: &Arc<Core>,
    accept_loop: &AcceptLoop<'_>,
    board: &Arc<Scoreboard>,
    worker: NewWorker<'_>,
) -> io::Result<bool> {
    let NewWorker { control, slot, heartbeat, clients, settings, .. } = worker;
    let model = settings.model();
    core.registry().publish_in_worker(board, slot.clone(), model.is_some());
    let serves_queued = !clients.is_empty();
    clients.into_iter().for_each(|client| core.handle.queue().push(client));
    if serves_queued {
        core.registry().begin_drain();
    }
    let (control, serving) = (Arc::new(control), Arc::new(AtomicBool::new(true)));
    // It stays open in the hook `worker_exit`: for the parent its end is that of the process.
    std::mem::forget(Arc::clone(&control));
    let is_commanded = Arc::new(AtomicBool::new(false));
    let reports = Arc::new(AtomicBool::new(false));
    let (stopping, stop) = pair()?;
    let (retiring, retire) = pair()?;
    let retire = Arc::new(retire);
    let control_thread = ControlThread {
        control: Arc::clone(&control),
        core: Arc::clone(core),
        signals: accept_loop.receive_signals_in_worker()?,
        retiring,
        listeners: accept_loop.listeners().to_vec(),
        stopping,
        serving: Arc::clone(&serving),
        is_commanded: Arc::clone(&is_commanded),
        slot: slot.clone(),
        caller: if model.is_none() { Some(AcceptInterrupter::of_this_thread()?) } else { None },
        threads: model.as_ref().map(|_| settings.threads()),
        reports: Arc::clone(&reports),
    };
    let connection_worker = match model {
        Some(_) => None,
        None => Some(connection_worker(core, accept_loop, stop)?),
    };
    let run_control = move || control_thread.run_control(heartbeat / 3);
    let control_thread = thread::Builder::new().name("sockserver-control".to_owned()).spawn(run_control)?;
    slot.start();
    let served = match (&model, &connection_worker) {
        (Some(model), _) => {
            // As after SIGTERM.
            let exhausted = Arc::clone(&retire);
            let handle = core.handle.clone();
            core.quota.set_on_exhausted(move || {
                let _ = exhausted.shutdown(SHUT_RDWR);
                // At once, because the control thread may have to wait for a processor.
                handle.end_loop();
            });
            let (parent, retire, slot) = (&*control, &*retire, &slot);
            let (serving, is_commanded) = (&*serving, &*is_commanded);
            let model_loop =
                ModelLoop { core, accept_loop, slot, parent, retire, serving, is_commanded, serves_queued };
            model_loop.run(&**model)
        }
        (None, Some(worker)) => {
            // As after SIGTERM.
            let (kept, handle) = (Arc::clone(&retire), core.handle.clone());
            core.quota.set_on_kept(move || {
                let _ = kept.shutdown(SHUT_RDWR);
                handle.end_loop();
            });
            serve(worker, core, &slot)
        }
        (None, None) => true,
    };
    serving.store(false, Ordering::Release);
    let is_draining = core.registry().is_draining() || reports.load(Ordering::Acquire);
    if is_draining && (!serves_queued || core.handle.stop_requested()) {
        // It ends with the drain, which it reports.
        let _ = control_thread.join();
    }
    Ok(served)
}

/// Returns what accepts one connection after the other.
fn connection_worker(
    core: &Arc<Core>,
    accept_loop: &AcceptLoop<'_>,
    stop: Socket,
) -> io::Result<AcceptWorker> {
    let acceptor = Acceptor::new(core, accept_loop.listeners(), accept_loop.settings());
    let (gate, stop) = (AcceptGate::new(acceptor), Arc::new(stop));
    match blocking_listener(accept_loop) {
        Some(listener) if listener.getblocking() => Ok(AcceptWorker::blocking(gate, stop)),
        _ => AcceptWorker::new(gate, stop),
    }
}

fn serve(worker: &AcceptWorker, core: &Core, slot: &Slot) -> bool {
    let handle = &core.handle;
    let most = handle.registry().limits().max_connections_per_ip;
    let expects_proxy_header = handle.registry().limits().expects_proxy_header();
    while !core.quota.is_exhausted() && !handle.loop_ends() {
        match while_accepting(|| worker.next(Some(POLL_INTERVAL))) {
            Ok(None) => {}
            Ok(Some(job)) => {
                // A proxy's header names the client first.
                if !expects_proxy_header {
                    slot.set_client(job.client_address());
                }
                if most.is_some_and(|most| slot.exceeds_per_ip_limit(most)) {
                    slot.clear_client();
                    log::debug!(
                        peer:% = job.client_address(), reason = "too many connections";
                        "request from {} refused: too many connections", job.client_address()
                    );
                    job.refuse_with_hook();
                    continue;
                }
                worker.serve(job);
                slot.clear_client();
            }
            // A draining parent has shut the listener down, or a worker whose parent has died.
            // The command follows.
            Err(_) if stop_requested(handle) => {}
            Err(error) => {
                log::error!(
                    pid = std::process::id(), errno = errno_field(&error);
                    "worker failed: {}", SafeDisplay(&error)
                );
                discard(error);
                return false;
            }
        }
    }
    true
}

/// The thread beside the one that serves.
struct ControlThread {
    /// The socket to the parent.
    control: Arc<Socket>,
    core: Arc<Core>,
    /// Receives the signals of this process, if the server handles them.
    signals: Option<Arc<Socket>>,
    /// Readable when this process has served its quota, or can no longer accept.
    retiring: Socket,
    listeners: Vec<Arc<Socket>>,
    /// Ends the wait for clients.
    stopping: Socket,
    serving: Arc<AtomicBool>,
    /// A command was carried out: the hook was called, and if it was to drain, the drain has begun.
    is_commanded: Arc<AtomicBool>,
    slot: Slot,
    /// Interrupts the thread that serves, if it waits in accept(2).
    caller: Option<AcceptInterrupter>,
    /// How many threads may be in handlers, if there are several connections.
    threads: Option<usize>,
    /// This worker is about to drain, and reports that.
    reports: Arc<AtomicBool>,
}

impl ControlThread {
    /// Records heartbeats until a command or SIGTERM comes, and carries it out. The end of the quota is
    /// as SIGTERM. End of file means that the parent has died.
    fn run_control(&self, look: Duration) {
        let ControlThread { control, core, serving, .. } = self;
        let handle = &core.handle;
        if handle.registry().is_draining() {
            // It was forked for a client of the queue.
            handle.state_cell().announce();
        }
        let mut is_stopped = false;
        let mut retires;
        let limit = loop {
            // Also after a stop: a loop that follows expects the heartbeats.
            let terminated = self.heartbeat_until_command(look, is_stopped);
            let line = if terminated { Some(String::new()) } else { next_command(control) };
            if line.as_deref() == Some("lame") {
                handle.state_cell().announce_up_to(ServerState::LameDuck);
                continue;
            }
            is_stopped = true;
            // Alone: the server goes on.
            retires = terminated || line.as_ref().is_some_and(|line| line.starts_with("leave "));
            let drains = line.as_ref().is_some_and(|line| line.starts_with("drain "));
            // The last request may end, and then the loop, before the hook `state_changed` has returned.
            self.reports.store(retires || drains, Ordering::Release);
            if drains {
                handle.registry().take_baseline();
            }
            handle.stop_local();
            if line.is_none() && !handle.leaves_listeners() {
                // The parent has died. A new server needs the address, also while the last
                // request here runs. A process that shares the listeners goes on with them, and a
                // successor that they were offered to begins to accept.
                self.listeners.iter().for_each(|listener| drop(listener.shutdown(SHUT_RDWR)));
            }
            // It cannot fail for a connected pair that is open.
            let _ = self.stopping.shutdown(SHUT_RDWR);
            if self.caller.as_ref().is_some_and(AcceptInterrupter::interrupt_accept) {
                self.slot.stop();
            }
            match line.as_deref() {
                Some("stop") => self.is_commanded.store(true, Ordering::Release),
                Some(line) if line.starts_with("drain ") => {
                    handle.registry().set_idle_grace(idle_grace(line));
                    break milliseconds(line);
                }
                Some(line) if !terminated => break milliseconds(line),
                _ => break handle.close_timeout(),
            }
        };
        let limit = limit.unwrap_or(Duration::from_millis(u64::MAX));
        if retires {
            self.wait_for_next_requests(limit);
        }
        handle.registry().begin_drain();
        self.is_commanded.store(true, Ordering::Release);
        let baseline = handle.registry().baseline();
        let still_serves = || serving.load(Ordering::Acquire);
        // The parent repeats the command of the drain when it waits for the workers. A worker that ends
        // alone has not received that command yet.
        let ordered = Cell::new(None);
        let hurry = || {
            let more = control.recv_with_flags(100, MSG_PEEK | MSG_DONTWAIT).unwrap_or_default();
            if retires && ordered.get().is_none() {
                let commands = String::from_utf8_lossy(&more);
                let drain = commands.lines().find(|line| line.starts_with("drain "));
                let limit = drain.and_then(milliseconds);
                ordered.set(limit.and_then(|limit| Instant::now().checked_add(limit)));
            }
            more.ends_with(b"hurry\n") || ordered.get().is_some_and(|until| Instant::now() >= until)
        };
        let collect = |is_over| {
            // The parent may not be draining.
            self.slot.heartbeat();
            // At the limit, so that no thread begins the next request.
            if is_over && handle.queue().is_open() {
                handle.close_queue();
            }
        };
        let report = handle.registry().drain(baseline, limit, &hurry, &collect, &still_serves);
        // It fails if the parent has died, and only the parent uses the report.
        let text = encode_report(&report);
        let _ = shortage::retry(|| control.sendall(text.as_bytes()));
        if report.still_running > 0 {
            // A handler does not return, and nothing else is left to do.
            worker_exit::exit(core, &self.slot, 1);
        }
    }

    /// Leaves the connections of a worker that ends alone open for the time of the lame duck, or for
    /// [`IDLE_GRACE`] if that is longer, so that no client sends a request on one that is being closed.
    /// The handler closes each one after its next answer. A command of the parent ends the wait.
    fn wait_for_next_requests(&self, limit: Duration) {
        let registry = self.core.registry();
        let begin = Instant::now();
        let time = registry.limits().lame_duck.max(IDLE_GRACE).min(limit / 2);
        while begin.elapsed() < time {
            self.slot.heartbeat();
            if !self.serving.load(Ordering::Acquire) && registry.own_stats().in_flight == 0 {
                return;
            }
            let look = RETIRE_POLL_INTERVAL.min(time);
            if poll(&mut [Poll::new(&*self.control, POLLIN)], Some(look)).is_ok_and(|count| count > 0) {
                let command = self.control.recv_with_flags(100, MSG_PEEK | MSG_DONTWAIT);
                let command = command.unwrap_or_default();
                if ![&b"lame\n"[..], b"stop\n", b"leave "].iter().any(|other| command.starts_with(other)) {
                    // The drain of a handover has a grace too.
                    let command = String::from_utf8_lossy(&command);
                    registry.set_idle_grace(idle_grace(command.lines().next().unwrap_or_default()));
                    return;
                }
                // The lame duck of the server, the end of its loop, or its replacement changes nothing.
                let _ = next_command(&self.control);
            }
        }
    }

    /// Records heartbeats. A stopped process records none. A process whose handler does not return
    /// records that it is stuck. Returns whether SIGTERM was received, or the process retires, unless it
    /// has stopped accepting anyway.
    fn heartbeat_until_command(&self, look: Duration, is_stopped: bool) -> bool {
        let limits = self.core.registry().limits();
        let patience = if limits.wrap_timeout.is_some() { Some(look) } else { limits.request_timeout };
        let mut over: Option<Instant> = None;
        loop {
            let mut polled = vec![Poll::new(&*self.control, POLLIN)];
            if !is_stopped {
                polled.push(Poll::new(&self.retiring, POLLIN));
            }
            polled.extend(self.signals.iter().map(|signals| Poll::new(&**signals, POLLIN)));
            match poll(&mut polled, Some(look)) {
                Err(error)
                    if error.kind() == io::ErrorKind::Interrupted || sock::was_interrupted(&error) => {}
                Err(error) if shortage::is_shortage(&error) => shortage::pause(),
                Ok(0) => {}
                Ok(_) if polled[0].revents() != 0 => return false,
                Ok(_) if !is_stopped && polled[1].revents() != 0 => return true,
                Ok(_) => {
                    // The terminal sends SIGINT to the parent too, which decides.
                    let signal = self.signals.as_ref();
                    let signal = signal.and_then(|signals| recv_uninterrupted(signals, 1).ok());
                    if signal.is_some_and(|signal| signals::is_sigterm(&signal)) {
                        return true;
                    }
                }
                Err(_) => return false,
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

    /// Returns whether the deadline of the current request has expired, or of a request in each
    /// thread.
    fn is_over(&self) -> bool {
        let registry = self.core.registry();
        if registry.limits().request_timeout.is_none() {
            return false;
        }
        if let Some(threads) = self.threads {
            return registry.overdue() >= threads;
        }
        let stats = registry.own_stats();
        // The request may have ended in between.
        stats.in_flight > stats.idle && registry.expire_overdue() == NEVER && registry.own_stats() == stats
    }
}

/// Receives a line, and nothing behind it, so that poll(2) shows whether there is another one.
/// `None` at end of file.
fn next_command(control: &Socket) -> Option<String> {
    let mut line = Vec::new();
    loop {
        match recv_uninterrupted(control, 1).ok()?[..] {
            [b'\n'] => return String::from_utf8(line).ok(),
            [byte] => line.push(byte),
            _ => return None,
        }
    }
}

/// The command to drain within `limit`, and to leave idle connections open for `idle_grace`.
pub(crate) fn drain_command(limit: Option<Duration>, idle_grace: Duration) -> String {
    match idle_grace.as_millis() {
        0 => command("drain", limit),
        grace => command(&format!("drain {}", u64::try_from(grace).unwrap_or(u64::MAX)), limit),
    }
}

/// The time for idle connections in a command to drain, zero without one.
fn idle_grace(command: &str) -> Duration {
    let number = command.strip_prefix("drain ").and_then(|rest| rest.split_once(' '));
    let number = number.and_then(|(grace, _)| grace.parse().ok());
    number.map_or(Duration::ZERO, Duration::from_millis)
}

/// The length of a buffer for any command.
pub(crate) const MAX_COMMAND: usize = 32;

/// The same in a buffer, for a signal handler.
pub(crate) fn encode_drain(buffer: &mut [u8; MAX_COMMAND], limit: Duration) -> &[u8] {
    let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let mut rest = &mut buffer[..];
    // It has room for each number.
    let _ = writeln!(rest, "drain {milliseconds}");
    let left = rest.len();
    &buffer[..MAX_COMMAND - left]
}

/// The command to end while the server goes on, within `limit`.
pub(crate) fn leave_command(limit: Option<Duration>) -> String {
    command("leave", limit)
}

fn command(name: &str, limit: Option<Duration>) -> String {
    let milliseconds = limit.and_then(|limit| u64::try_from(limit.as_millis()).ok());
    format!("{name} {}\n", milliseconds.unwrap_or(u64::MAX))
}

/// The number of milliseconds at the end of a command. `None` without one.
fn milliseconds(command: &str) -> Option<Duration> {
    command.trim_end().rsplit(' ').next()?.parse().ok().map(Duration::from_millis)
}

/// Encodes `finished idle still_running aborted`, and a line for each aborted request, up to
/// [`MAX_REPORT`].
fn encode_report(report: &DrainReport) -> String {
    let (finished, idle, left) = (report.finished, report.idle, report.still_running);
    let mut text = format!("{finished} {idle} {left} {}\n", report.aborted.len());
    for AbortedRequest { client_address, age } in &report.aborted {
        if text.len() >= MAX_REPORT {
            break;
        }
        text += &format!("{} {}\n", age.as_millis(), encode_address(client_address));
    }
    text
}

/// Encodes an address without a space or a line break. The name of a Unix socket is encoded as hex
/// digits, because its client chooses it.
fn encode_address(address: &Address) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match address {
        Address::Unix(UnixAddress::Path(path)) => {
            format!("unix:{}", hex(path.as_os_str().as_encoded_bytes()))
        }
        Address::Unix(UnixAddress::Abstract(name)) => format!("unix:00{}", hex(name)),
        Address::Unix(_) => "unix:".to_owned(),
        address => address.to_socket_addr().map_or_else(|| "none".to_owned(), |known| known.to_string()),
    }
}

fn decode_address(text: &str) -> Option<Address> {
    let Some(digits) = text.strip_prefix("unix:") else {
        return text.parse::<SocketAddr>().ok().map(Address::from);
    };
    if digits.is_empty() {
        return Some(Address::Unix(UnixAddress::Unnamed));
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let name: Vec<u8> = digits.as_bytes().chunks(2).map(byte).collect::<Option<_>>()?;
    name[..].to_address(AF_UNIX).ok()
}

/// Adds the report of a worker. Returns whether there is one.
pub(crate) fn read_report(control: &Socket, report: &mut DrainReport) -> bool {
    let mut text = Vec::new();
    while let Ok(data @ [_, ..]) = control.recv_with_flags(4096, MSG_DONTWAIT).as_deref() {
        text.extend_from_slice(data);
    }
    let text = String::from_utf8_lossy(&text);
    let text = text.strip_prefix(LEAVES).unwrap_or(&text);
    let mut lines = text.lines();
    let numbers: Vec<u64> =
        lines.next().unwrap_or_default().split(' ').filter_map(|number| number.parse().ok()).collect();
    let [finished, idle, left, aborted] = numbers[..] else { return false };
    // A worker with corrupted memory can send any numbers.
    report.finished = report.finished.saturating_add(finished);
    report.idle = report.idle.saturating_add(idle);
    report.still_running = report.still_running.saturating_add(left);
    let mut listed = 0;
    for line in lines {
        let Some((age, address)) = line.split_once(' ') else { continue };
        let client_address = decode_address(address).unwrap_or(Address::None);
        let age = Duration::from_millis(age.parse().unwrap_or_default());
        report.aborted.push(AbortedRequest { client_address, age });
        listed += 1;
    }
    let unknown = AbortedRequest { client_address: Address::None, age: Duration::ZERO };
    let more = usize::try_from(aborted).unwrap_or(usize::MAX).min(MAX_UNKNOWN).saturating_sub(listed);
    report.aborted.extend(std::iter::repeat_n(unknown, more));
    true
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_longest_limit_is_sent_as_no_limit() {
        let none = drain_command(None, Duration::ZERO);
        let mut buffer = [0; MAX_COMMAND];
        assert_eq!(encode_drain(&mut buffer, Duration::MAX), none.as_bytes());
        let limit = Duration::from_millis(1500);
        assert_eq!(encode_drain(&mut buffer, limit), drain_command(Some(limit), Duration::ZERO).as_bytes());
        assert_eq!(drain_command(Some(Duration::MAX), Duration::ZERO), none);
        assert_eq!(milliseconds(&none), Some(Duration::from_millis(u64::MAX)));
        assert_eq!(
            milliseconds(&drain_command(Some(Duration::from_secs(2)), Duration::ZERO)),
            Some(Duration::from_secs(2))
        );
    }

    #[test]
    fn the_time_for_idle_connections_is_sent_with_the_limit() {
        let seconds = Duration::from_secs;
        for (limit, grace) in [(seconds(2), seconds(1)), (seconds(2), seconds(0)), (seconds(0), seconds(3))]
        {
            let command = drain_command(Some(limit), grace);
            assert_eq!((milliseconds(&command), idle_grace(&command)), (Some(limit), grace), "{command}");
        }
        assert_eq!(idle_grace(&drain_command(None, Duration::MAX)), Duration::from_millis(u64::MAX));
        assert_eq!(idle_grace(&leave_command(Some(seconds(2)))), seconds(0));
    }

    #[test]
    fn a_report_over_many_requests_does_not_fill_the_socket() {
        let client_address = Address::from("127.0.0.1:9".parse::<SocketAddr>().unwrap());
        let request = AbortedRequest { client_address, age: Duration::from_millis(5) };
        let sent = DrainReport { aborted: vec![request.clone(); 20_000], ..DrainReport::default() };
        let (parent, worker) = pair().unwrap();
        let text = encode_report(&sent);
        assert_eq!(worker.send_with_flags(text.as_bytes(), MSG_DONTWAIT).unwrap(), text.len());
        let mut read = DrainReport::default();
        assert!(read_report(&parent, &mut read));
        assert_eq!(read.aborted.len(), 20_000);
        assert_eq!(read.aborted[0], request);
        assert_eq!(read.aborted[19_999].client_address, Address::None);
    }

    #[test]
    fn the_address_of_a_unix_client_cannot_add_lines_to_a_report() {
        let names: [&[u8]; 5] = [b"/tmp/a\n7 127.0.0.1:9\n", b"/tmp/a b", b"/tmp/\xff", b"\0a\nb", b""];
        let mut sent = DrainReport { finished: 1, idle: 2, still_running: 3, ..DrainReport::default() };
        let unix = names.iter().map(|name| match name {
            [] => Address::Unix(UnixAddress::Unnamed),
            name => name.to_address(AF_UNIX).unwrap(),
        });
        let tcp = ["127.0.0.1:9", "[::1]:9"].map(|text| Address::from(text.parse::<SocketAddr>().unwrap()));
        for client_address in unix.chain(tcp).chain([Address::None]) {
            sent.aborted.push(AbortedRequest { client_address, age: Duration::from_millis(5) });
        }
        let (parent, worker) = pair().unwrap();
        worker.sendall(encode_report(&sent).as_bytes()).unwrap();
        let mut read = DrainReport::default();
        assert!(read_report(&parent, &mut read));
        assert_eq!(read, sent);
        assert_eq!(sent.to_string().lines().count(), 1, "{sent}");
    }
}
