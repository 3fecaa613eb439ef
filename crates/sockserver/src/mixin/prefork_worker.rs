//! The life of a worker process.

use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sock::{Address, MSG_DONTWAIT, SHUT_RDWR, Socket, socketpair};

use crate::door::Door;
use crate::handle::ServerHandle;
use crate::job::Core;
use crate::mixin::worker::Worker;
use crate::registry::{CutOff, DrainReport};
use crate::scoreboard::Slot;
use crate::sys;

/// Exit status of a worker whose listener is of no more use.
pub(crate) const LISTENER_GONE: i32 = 3;

/// How much longer than its limit a worker may take to end its drain.
pub(crate) const GRACE: Duration = Duration::from_millis(200);

/// Serves requests until it is told to stop, or has served `quota`. Returns the
/// exit status.
pub(crate) fn run(
    door: &Door,
    control: Socket,
    slot: Slot,
    quota: Option<u64>,
    heartbeat: Duration,
) -> i32 {
    match serve_as_told(door, control, slot, quota, heartbeat) {
        Ok(true) => 0,
        Ok(false) => LISTENER_GONE,
        Err(error) => {
            log::error!("worker: {error}");
            1
        }
    }
}

/// False when the listener is of no more use.
fn serve_as_told(
    door: &Door,
    control: Socket,
    slot: Slot,
    quota: Option<u64>,
    heartbeat: Duration,
) -> io::Result<bool> {
    let core = Arc::new(Core::for_worker(door.core())?);
    core.hooks.start_worker()?;
    core.registry().set_mirror(slot.clone());
    let (stopping, stop) = socketpair()?;
    let handle = core.handle.clone();
    let obeying = move || obey(&control, &handle, &stopping);
    let control = thread::Builder::new().name("sockserver-control".to_owned()).spawn(obeying)?;
    let worker = Worker::new(door.for_core(&core), &stop)?;
    let served = serve(&worker, &core.handle, &slot, quota, heartbeat);
    if core.registry().is_draining() {
        // It ends when the drain has, which tells how it went.
        let _ = control.join();
    }
    Ok(served)
}

fn serve(
    worker: &Worker<'_>,
    handle: &ServerHandle,
    slot: &Slot,
    quota: Option<u64>,
    heartbeat: Duration,
) -> bool {
    let mut left = quota.unwrap_or(u64::MAX);
    while left > 0 && !handle.is_stopping() {
        slot.beat(false);
        match worker.next(Some(heartbeat / 3)) {
            Ok(None) => {}
            Ok(Some(job)) => {
                slot.beat(true);
                job.run();
                left -= 1;
            }
            // A parent that drains has shut it down, and says so in a moment.
            Err(_) if handle.is_stopping() => {}
            Err(error) => {
                log::error!("worker: {error}");
                return false;
            }
        }
    }
    true
}

/// Does what the parent says, or what its end means.
fn obey(control: &Socket, handle: &ServerHandle, stopping: &Socket) {
    let mut lines = control.makefile_rb().lines();
    let limit = loop {
        let line = lines.next().and_then(Result::ok);
        handle.stop_here();
        let _ = stopping.shutdown(SHUT_RDWR);
        match line.as_deref() {
            Some("stop") => {}
            Some(line) => break line.strip_prefix("drain ").and_then(|limit| limit.parse().ok()),
            // The parent is gone.
            None => break handle.close_timeout().map(|limit| limit.as_millis() as u64),
        }
    };
    let limit = Duration::from_millis(limit.unwrap_or(u64::MAX));
    let report = handle.registry().drain(limit, &|| false, &|| {});
    let _ = control.sendall(in_lines(&report).as_bytes());
    if report.left > 0 {
        // Its handler does not return, and this process has nothing else to do.
        sys::exit_now(1);
    }
}

/// `finished idle left`, and a line for each that was cut off.
fn in_lines(report: &DrainReport) -> String {
    let mut text = format!("{} {} {}\n", report.finished, report.idle, report.left);
    for CutOff { client_address, age } in &report.cut {
        text += &format!("{} {client_address}\n", age.as_millis());
    }
    text
}

/// Adds what a worker has told at its end.
pub(crate) fn read_report(control: &Socket, report: &mut DrainReport) {
    let mut text = Vec::new();
    while let Ok(data @ [_, ..]) = control.recv_with_flags(4096, MSG_DONTWAIT).as_deref() {
        text.extend_from_slice(data);
    }
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines();
    let numbers: Vec<u64> =
        lines.next().unwrap_or_default().split(' ').filter_map(|number| number.parse().ok()).collect();
    let [finished, idle, left] = numbers[..] else { return };
    report.finished += finished;
    report.idle += idle;
    report.left += left;
    for line in lines {
        let Some((age, address)) = line.split_once(' ') else { continue };
        let client_address = address.parse::<SocketAddr>().map_or(Address::None, Address::from);
        let age = Duration::from_millis(age.parse().unwrap_or_default());
        report.cut.push(CutOff { client_address, age });
    }
}
