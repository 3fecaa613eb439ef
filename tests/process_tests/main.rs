//! Tests that need their own process: forks, signals, and counts of descriptors, threads and child
//! processes, which other tests would disturb.
//!
//! Every test is a run of this program with `--alone NAME`, in which the test is the only thread.

/// Calls a generic function with the name of each model and a function that makes its mixin.
macro_rules! for_each_model {
    ($check:ident $(, $argument:expr)*) => {{
        use sockserver::{ForkingMixIn, PreforkMixIn, SelectorMixIn, Sequential};
        use sockserver::{ThreadPoolMixIn, ThreadingMixIn};
        $check("tcp", || Sequential $(, $argument)*);
        $check("threading", ThreadingMixIn::new $(, $argument)*);
        $check("pool", || ThreadPoolMixIn::new().workers(2) $(, $argument)*);
        $check("forking", ForkingMixIn::new $(, $argument)*);
        $check("prefork", || PreforkMixIn::new().workers(2) $(, $argument)*);
        $check("selector", || SelectorMixIn::new().workers(2) $(, $argument)*);
    }};
}

mod accept_queue;
mod access;
mod admin;
mod blocked_logger;
mod calls_in_hooks;
mod cpython;
mod default_timeout;
mod descriptors;
mod drain_on_signals;
mod foreign_wait;
mod forking;
mod forking_outcomes;
mod handover;
mod is_stopping;
mod lame_duck;
mod log_keys;
mod log_limits;
mod loggers;
mod manage_workers;
#[cfg(target_os = "linux")]
mod memory_shortage;
mod nothing_left;
mod panics;
mod prefork_lifetimes;
mod preforking;
mod proxy_protocol;
mod relative_paths;
mod release;
mod selectors;
mod serve_after_fork;
mod serve_in_child;
mod setters;
mod shortage;
mod signals;
mod stats_in_workers;
mod stuck_parent;
#[path = "../../crates/sockserver/tests/support/mod.rs"]
mod support;
mod tls;
mod unix_mode;
mod worker_class;
mod worker_exit;

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use sockserver::WorkerClass;

/// The name and the function of a test, which panics if the test fails.
type Test = (&'static str, fn());

/// Tests of pre-forked servers that run once more for each other class of workers: see
/// [`worker_class`].
const IN_EACH_CLASS: &[&str] = &[
    "sigterm_ends_a_managed_worker_after_its_request",
    "sighup_replaces_the_workers_one_by_one",
    "a_reload_that_fails_keeps_the_workers",
    "sigttin_and_sigttou_change_the_number_of_workers",
    "prefork_requests_go_on_while_the_next_loop_serves",
    "prefork_worker_exit_may_take_longer_than_heartbeat",
    "prefork_serves_and_leaves_no_process",
    "prefork_workers_leave_accept_when_the_loop_ends",
    "prefork_replaces_a_killed_worker_and_counts_its_client",
    "prefork_replaces_a_stopped_worker",
    "prefork_keeps_its_workers_when_all_processes_were_stopped",
    "prefork_workers_leave_when_their_parent_is_killed",
    "prefork_drain_reports_over_all_workers",
    "prefork_counts_a_client_for_the_address_that_wrap_request_names",
    "prefork_serves_datagrams",
    "prefork_workers_do_not_accept_after_the_stop_once_the_loop_has_ended",
    "a_prefork_worker_reads_the_counters_of_all_workers",
    "counters_do_not_decrease_when_workers_are_replaced",
    "requests_of_persistent_connections_are_counted_in_all_processes",
    "a_prefork_server_passes_through_all_states",
    "a_second_signal_ends_the_lame_duck_of_a_prefork_server",
    "a_prefork_server_serves_the_accept_queue_in_a_drain",
    "tls_in_preforked_workers",
    "sighup_replaces_the_certificate_of_a_prefork_server",
    "access_prefork_denies_until_the_rules_are_replaced",
    "access_prefork_applies_to_the_named_client",
    "access_prefork_workers_share_the_accept_rate",
    "log_keys_are_those_of_the_documentation_in_prefork_workers",
    "proxy_protocol_prefork_serves_the_named_client",
    "proxy_protocol_prefork_limits_the_named_address",
    "handover_of_a_prefork_server_loses_no_request",
    "handover_of_a_prefork_server_answers_kept_connections",
    "handover_of_a_prefork_server_answers_in_replaced_workers",
    "handover_fails_before_it_is_ready_prefork",
    "upgrade_of_a_prefork_server_loses_no_request",
    "prefork_workers_leave_offered_listeners_when_their_parent_is_killed",
    "prefork_leaves_released_listeners",
    "prefork_workers_leave_adopted_listeners_when_their_parent_is_killed",
    "handlers_of_prefork_servers_see_a_stop",
];

/// The classes, and how tests that run with them are named.
const CLASSES: [(&str, WorkerClass); 2] =
    [("in_threads", WorkerClass::Threads(4)), ("with_a_selector", WorkerClass::Selector)];

/// The environment variable that names the class of workers of a test.
const CLASS: &str = "TEST_WORKER_CLASS";

/// Returns the class of pre-forked workers in this run of a test.
pub(crate) fn worker_class() -> WorkerClass {
    let name = std::env::var(CLASS).unwrap_or_default();
    let class = CLASSES.into_iter().find(|(known, _)| *known == name);
    class.map_or(WorkerClass::Sync, |(_, class)| class)
}

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let tests = [
        accept_queue::TESTS,
        access::TESTS,
        admin::TESTS,
        calls_in_hooks::TESTS,
        cpython::TESTS,
        default_timeout::TESTS,
        descriptors::TESTS,
        drain_on_signals::TESTS,
        foreign_wait::TESTS,
        forking::TESTS,
        forking_outcomes::TESTS,
        handover::TESTS,
        is_stopping::TESTS,
        lame_duck::TESTS,
        log_keys::TESTS,
        log_limits::TESTS,
        loggers::TESTS,
        manage_workers::TESTS,
        #[cfg(target_os = "linux")]
        memory_shortage::TESTS,
        nothing_left::TESTS,
        panics::TESTS,
        prefork_lifetimes::TESTS,
        preforking::TESTS,
        proxy_protocol::TESTS,
        release::TESTS,
        relative_paths::TESTS,
        selectors::TESTS,
        serve_after_fork::TESTS,
        serve_in_child::TESTS,
        setters::TESTS,
        shortage::TESTS,
        signals::TESTS,
        stats_in_workers::TESTS,
        stuck_parent::TESTS,
        blocked_logger::TESTS,
        tls::TESTS,
        unix_mode::TESTS,
        worker_class::TESTS,
        worker_exit::TESTS,
    ]
    .concat();
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, name] = &arguments[..] {
        if flag == "--alone" {
            #[cfg_attr(target_os = "linux", allow(unused_mut, reason = "it is chained below"))]
            let mut all = tests
                .iter()
                .chain(drain_on_signals::HELPERS)
                .chain(manage_workers::HELPERS)
                .chain(forking::HELPERS)
                .chain(handover::HELPERS)
                .chain(log_limits::HELPERS)
                .chain(preforking::HELPERS)
                .chain(release::HELPERS)
                .chain(serve_in_child::HELPERS)
                .chain(stuck_parent::HELPERS)
                .chain(blocked_logger::HELPERS)
                .chain(tls::HELPERS)
                .chain(unix_mode::HELPERS)
                .chain(worker_exit::HELPERS);
            #[cfg(target_os = "linux")]
            let mut all = all.chain(memory_shortage::HELPERS);
            let (_, test) = all.find(|(known, _)| known == name).expect("no test has this name");
            test();
            return ExitCode::SUCCESS;
        }
    }
    start_tests_with_default_actions();
    let mut trials: Vec<Trial> =
        tests.iter().map(|&(name, _)| Trial::test(name, move || run_alone(name, ""))).collect();
    for name in IN_EACH_CLASS {
        assert!(tests.iter().any(|(known, _)| known == name), "no test is named {name}");
        for (class, _) in CLASSES {
            trials.push(Trial::test(format!("{name}_{class}"), move || run_alone(name, class)));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Starts tests with the default action of the signals that end a server, also if this program was
/// started with an ignored SIGINT, as a shell does for a command in the background. A program inherits
/// an ignored signal, but not a handler.
fn start_tests_with_default_actions() {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The handler does what the default action would do.
        signal_hook::flag::register_conditional_default(signal, Arc::new(AtomicBool::new(true)))
            .expect("a handler");
    }
}

fn run_alone(name: &str, class: &str) -> Result<(), Failed> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program)
        .args(["--alone", name])
        .env(CLASS, class)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stderr = child.stderr.take().ok_or("no pipe for stderr")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        let _ = sender.send(text);
    });
    let text = match receiver.recv_timeout(LIMIT) {
        Ok(text) => text,
        Err(_) => {
            child.kill()?;
            // Children of the test may keep the pipe open.
            let text = receiver.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
            format!("still running after {LIMIT:?}\n{text}")
        }
    };
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("{status}\n{text}").into()) }
}
