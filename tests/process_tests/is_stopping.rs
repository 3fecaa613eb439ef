//! The promise: the handlers of other processes see that their server stops, after a signal, a
//! `shutdown`, and the death of the parent.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use sock::{AF_UNIX, MSG_DONTWAIT, SOCK_DGRAM};
use sockserver::kind::Inet;
use sockserver::{ForkingMixIn, MixIn, PreforkMixIn, StreamServer, handler_fn};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to, read_to_end, sleep_briefly};

pub(crate) const TESTS: &[Test] = &[
    ("handlers_of_forking_servers_see_a_stop", || handlers_see_a_stop(ForkingMixIn::new)),
    ("handlers_of_prefork_servers_see_a_stop", || {
        handlers_see_a_stop(|| PreforkMixIn::new().workers(1).worker_class(crate::worker_class()))
    }),
];

fn handlers_see_a_stop<M: MixIn + Default>(mixin: impl Fn() -> M) {
    for by_signal in [true, false] {
        let (begins, begun) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap();
        let handler = handler_fn(move |cx| {
            cx.request.recv(1)?;
            let before = cx.server.is_stopping();
            begins.send(b"!")?;
            let until = Instant::now() + LIMIT;
            while !cx.server.is_stopping() && Instant::now() < until {
                sleep_briefly();
            }
            write!(cx.wfile, "{before} {}", cx.server.is_stopping())
        });
        let stopped = AtomicBool::new(false);
        let server = StreamServer::<Inet, M>::builder(handler)
            .mixin(mixin())
            .poll_interval(Duration::from_millis(3))
            .drain_on_signals(LIMIT)
            .service_actions(move |handle| {
                let has_begun = begun.recv_with_flags(1, MSG_DONTWAIT).is_ok();
                if !has_begun || stopped.swap(true, Ordering::SeqCst) {
                } else if by_signal {
                    kill_process(getpid(), Signal::TERM).unwrap();
                } else {
                    handle.request_shutdown().unwrap();
                }
            })
            .bind(LOOPBACK)
            .unwrap();
        let client = connect_to(server.server_address());
        client.sendall(b"?").unwrap();
        server.serve_forever().unwrap();
        server.server_close().unwrap();
        assert_eq!(read_to_end(&client), "false true", "by signal: {by_signal}");
    }
}
