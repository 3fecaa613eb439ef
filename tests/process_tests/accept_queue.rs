//! The promise: a server whose drain is accepting the clients of the accept queue waits for them without
//! using the processor.

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sock::{Address, Socket};
use sockserver::kind::Inet;
use sockserver::{
    MixIn, SelectorMixIn, Sequential, ServerHooks, ServerState, StreamServer, ThreadPoolMixIn,
    ThreadingMixIn, handler_fn, testing,
};

use crate::Test;
use crate::support::{Gate, LIMIT, LOOPBACK, OpenOnDrop, connect_to, read_to_end};

pub(crate) const TESTS: &[Test] = &[("a_server_does_not_spin_while_a_drain_accepts", || {
    does_not_spin::<Sequential>();
    does_not_spin::<ThreadingMixIn>();
    does_not_spin::<ThreadPoolMixIn>();
    does_not_spin::<SelectorMixIn>();
})];

/// Has the thread that drains wait at the gate, with a client in the accept queue.
#[derive(Clone, Default)]
struct SlowDrain(Arc<Inside>);

#[derive(Default)]
struct Inside {
    gate: Gate,
    address: OnceLock<Address>,
    draining: AtomicBool,
    client: Mutex<Option<Socket>>,
}

impl ServerHooks for SlowDrain {
    fn state_changed(&self, state: ServerState) {
        if state == ServerState::Draining {
            self.0.draining.store(true, Ordering::SeqCst);
            *self.0.client.lock().unwrap() = Some(asking(self.0.address.get().unwrap()));
        }
    }

    fn get_request(&self, listener: &Socket) -> io::Result<(Socket, Address)> {
        if self.0.draining.load(Ordering::SeqCst) {
            // The drain calls it in a thread of its own.
            if thread::current().name() != Some("sockserver-queue") {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.0.gate.pass();
        }
        listener.accept()
    }
}

fn asking(address: &Address) -> Socket {
    let client = connect_to(address);
    client.sendall(b"\n").unwrap();
    client
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn does_not_spin<M: MixIn + Default>() {
    let hooks = SlowDrain::default();
    let gate = hooks.0.gate.clone();
    let _open = OpenOnDrop(gate.clone());
    // A selector serves a client that has sent something.
    let handler = handler_fn(|cx| {
        cx.rfile.read_line(&mut String::new())?;
        cx.wfile.write_all(b"served")
    });
    let server = StreamServer::<Inet, M>::builder(handler).hooks(hooks.clone());
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    hooks.0.address.set(server.address().clone()).unwrap();
    // It serves.
    assert_eq!(read_to_end(&asking(server.address())), "served");
    let report = thread::scope(|scope| {
        let draining = scope.spawn(|| server.handle().drain(LIMIT).unwrap());
        gate.wait_for(1);
        let before = processor_time();
        // The test is about this time.
        thread::sleep(Duration::from_millis(500));
        let used = processor_time() - before;
        gate.open();
        assert!(used < Duration::from_millis(50), "{used:?} of 500 ms");
        draining.join().unwrap()
    });
    assert!(report.aborted.is_empty() && report.still_running == 0, "{report}");
    let client = hooks.0.client.lock().unwrap().take().unwrap();
    assert_eq!(read_to_end(&client), "served");
}
