//! The ratios that our servers are required to reach, and those that they aim for.

use std::collections::BTreeMap;

use crate::results::{CPU, P99, RATE, Results};
use crate::table::render;

/// A bound on a measurement of one of our servers.
struct Target {
    mode: &'static str,
    ours: &'static str,
    what: What,
    must: Option<f64>,
    aim: Option<f64>,
}

enum What {
    /// Upper bound on the server's CPU time relative to this peer's.
    Cpu(&'static str),
    /// Upper bound on the 99th percentile of the latency relative to this peer's.
    P99(&'static str),
    /// Lower bound on the rate relative to this peer's.
    Rate(&'static str),
    /// Upper bound on the user memory of an idle connection, in bytes.
    IdleBytes,
}

const fn at(
    mode: &'static str,
    ours: &'static str,
    what: What,
    must: Option<f64>,
    aim: Option<f64>,
) -> Target {
    Target { mode, ours, what, must, aim }
}

use What::{Cpu, IdleBytes, Rate};

const TARGETS: &[Target] = &[
    at("echo", "SelectorTCPServer", Cpu("c-epoll"), Some(1.05), Some(1.00)),
    at("echo", "SelectorTCPServer", Cpu("tokio-current"), Some(1.05), Some(1.00)),
    at("echo", "SelectorTCPServer", Rate("go"), Some(1.25), None),
    at("echo", "ThreadingTCPServer", Cpu("std-thread"), Some(1.05), Some(1.00)),
    at("echo", "ThreadingTCPServer", Rate("python-thread"), Some(1.20), None),
    at("echo-free", "SelectorTCPServer", Cpu("tokio-multi"), Some(1.00), None),
    at("echo-free", "SelectorTCPServer", What::P99("tokio-multi"), Some(1.00), Some(0.50)),
    at("echo4k", "SelectorTCPServer", Cpu("tokio-current"), Some(0.95), Some(0.85)),
    at("unix", "SelectorUnixStreamServer", Cpu("c-epoll"), Some(1.08), Some(1.00)),
    at("unix", "SelectorUnixStreamServer", Cpu("tokio-current"), Some(1.05), Some(1.00)),
    at("short", "SelectorTCPServer", Cpu("c-epoll"), Some(1.10), Some(1.03)),
    at("short", "SelectorTCPServer", Cpu("tokio-multi"), Some(1.00), None),
    at("short", "ThreadingTCPServer", Cpu("c-epoll"), Some(1.35), Some(1.25)),
    at("short", "ThreadingTCPServer", Rate("std-thread"), Some(1.50), None),
    at("short", "ThreadingTCPServer", Rate("go"), None, Some(1.00)),
    at("short", "ThreadPoolTCPServer", Cpu("std-pool"), Some(1.00), None),
    at("short", "ThreadPoolTCPServer", Cpu("c-epoll"), None, Some(1.15)),
    at("short", "TCPServer", Cpu("std-sequential"), Some(1.05), Some(1.00)),
    at("short", "ForkingTCPServer", Cpu("c-fork"), Some(1.15), Some(1.05)),
    at("short", "PreforkTCPServer", Cpu("c-prefork"), Some(1.05), Some(1.00)),
    at("idle", "SelectorTCPServer", IdleBytes, Some(256.0), Some(64.0)),
    at("idle", "SelectorTCPServer", Rate("SelectorTCPServer alone"), Some(0.97), None),
    at("udp", "UDPServer", Cpu("c-recvfrom"), Some(1.05), None),
    at("udp", "UDPServer", Cpu("tokio-udp"), Some(1.00), None),
    at("udp", "UDPServer", Rate("python-udp"), Some(1.90), None),
    at("udp", "UDPServer max_batch", Cpu("c-recvmmsg"), None, Some(1.02)),
    at("bulk", "handler with sendfile", Rate("c-sendfile"), Some(0.95), Some(1.00)),
    at("recv", "Socket", Cpu("recv(2)"), Some(1.05), Some(1.00)),
    at("recv", "Socket with timeout", Cpu("recv(2)"), Some(1.05), Some(1.00)),
];

/// Returns the table of targets, of one mode or of all.
pub(crate) fn table(all: &BTreeMap<String, Results>, mode: Option<&str>) -> String {
    let head = ["mode", "server", "measure", "required", "target", "measured", "result"].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    for target in TARGETS.iter().filter(|target| mode.is_none_or(|mode| mode == target.mode)) {
        rows.push(target.row(all.get(target.mode)));
    }
    if rows.len() == 1 { String::new() } else { render(&rows) }
}

impl Target {
    fn row(&self, results: Option<&Results>) -> Vec<String> {
        let measured = results.and_then(|results| self.measured(results));
        let (what, sign) = match self.what {
            Cpu(peer) => (format!("CPU / {peer}"), '≤'),
            What::P99(peer) => (format!("p99 / {peer}"), '≤'),
            Rate(peer) => (format!("rate / {peer}"), '≥'),
            IdleBytes => ("user bytes per idle connection".to_owned(), '≤'),
        };
        let bound =
            |bound: Option<f64>| bound.map_or("".into(), |bound| format!("{sign} {}", self.show(bound)));
        vec![
            self.mode.into(),
            self.ours.into(),
            what,
            bound(self.must),
            bound(self.aim),
            measured.map_or("not measured".into(), |measured| self.show(measured)),
            measured.map_or("".into(), |measured| self.verdict(measured).into()),
        ]
    }

    fn measured(&self, results: &Results) -> Option<f64> {
        let ours = results.named(self.ours)?;
        let ratio = |peer, value| Some(ours.ratio(results.named(peer)?, value)?.median);
        match self.what {
            Cpu(peer) => ratio(peer, CPU),
            What::P99(peer) => ratio(peer, P99),
            Rate(peer) => ratio(peer, RATE),
            IdleBytes => Some(ours.reports.iter().flatten().find_map(|report| report.idle.as_ref())?.user),
        }
    }

    fn show(&self, value: f64) -> String {
        match self.what {
            IdleBytes => format!("{value:.0}"),
            _ => format!("{value:.2}"),
        }
    }

    /// Compares the rounded value, as it is shown: 1.004 counts as 1.00.
    fn verdict(&self, measured: f64) -> &'static str {
        let rounded = (measured * 100.0).round() / 100.0;
        let holds = |bound: f64| match self.what {
            Rate(_) => rounded >= bound,
            _ => rounded <= bound,
        };
        match (self.must.is_none_or(holds), self.aim.is_some_and(holds)) {
            (false, _) => "**not met**",
            (true, true) => "target met",
            (true, false) if self.must.is_none() => "target not met",
            (true, false) => "met",
        }
    }
}
