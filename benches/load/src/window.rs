//! The measured part of a run, which follows the warm-up.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Options;
use crate::report::Report;
use crate::server::{Costs, machine_cpu, own_cpu};

pub(crate) struct Window {
    server: Option<i32>,
    begin: Instant,
    end: Instant,
    start: Option<Start>,
    times: Histogram<u64>,
    operations: u64,
}

/// The counters of all processes when the measurement began.
struct Start {
    at: Instant,
    server: Costs,
    own: Duration,
    machine: Duration,
}

/// The phase of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// The measurement begins now. Operations in flight restart.
    Begins,
    Over,
}

impl Window {
    pub(crate) fn new(options: &Options) -> Window {
        let begin = Instant::now() + options.warm_up();
        Window {
            server: options.server,
            begin,
            end: begin + options.seconds(),
            start: None,
            // Up to a minute, with a resolution of one percent.
            times: Histogram::new_with_bounds(1000, 60_000_000_000, 2).expect("the bounds are in order"),
            operations: 0,
        }
    }

    /// Returns the phase. Call it regularly.
    pub(crate) fn phase(&mut self) -> Phase {
        let now = Instant::now();
        if self.start.is_none() && now >= self.begin {
            self.begin_now();
            return Phase::Begins;
        }
        if now >= self.end { Phase::Over } else { Phase::Running }
    }

    pub(crate) fn begin_now(&mut self) {
        let server = Costs::of(self.server);
        let (own, machine) = (own_cpu(), machine_cpu());
        self.start = Some(Start { at: Instant::now(), server, own, machine });
        self.times.reset();
        self.operations = 0;
    }

    /// Records `count` operations that started at `since`.
    pub(crate) fn note(&mut self, count: u64, since: Instant, now: Instant) {
        self.times.saturating_record_n((now - since).as_nanos() as u64, count);
        self.operations += count;
    }

    pub(crate) fn report(self) -> Report {
        let now = Instant::now();
        let own = own_cpu();
        let server = Costs::of(self.server);
        let machine = machine_cpu();
        let start = self.start.unwrap_or(Start { at: now, server, own, machine });
        let elapsed = (now - start.at).as_secs_f64().max(1e-9);
        let operations = self.operations.max(1) as f64;
        let server_cpu = server.cpu.saturating_sub(start.server.cpu).as_secs_f64();
        let own = own.saturating_sub(start.own).as_secs_f64();
        let machine = machine.saturating_sub(start.machine).as_secs_f64();
        let microseconds = |quantile| self.times.value_at_quantile(quantile) as f64 / 1e3;
        Report {
            operations: self.operations,
            rate: self.operations as f64 / elapsed,
            cpu: server_cpu * 1e6 / operations,
            p50: microseconds(0.5),
            p99: microseconds(0.99),
            p999: microseconds(0.999),
            switches: server.switches.saturating_sub(start.server.switches) as f64 / operations,
            threads: server.threads,
            server_cores: server_cpu / elapsed,
            load_cores: own / elapsed,
            other_cores: ((machine - server_cpu - own) / elapsed).max(0.0),
            idle: None,
        }
    }
}
