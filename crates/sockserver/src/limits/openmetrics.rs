//! The counters as text for Prometheus and other collectors.

use std::fmt::{Arguments, Write};

use crate::limits::durations::DurationHistogram;
use crate::limits::stats::{Stats, TimedOut};

/// Text in the format of OpenMetrics.
#[derive(Default)]
pub(crate) struct OpenMetrics(String);

impl OpenMetrics {
    /// Adds the lines that precede the samples of a metric.
    fn describe(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        self.write(format_args!("# TYPE sockserver_{name} {kind}"));
        if !unit.is_empty() {
            self.write(format_args!("# UNIT sockserver_{name} {unit}"));
        }
        self.write(format_args!("# HELP sockserver_{name} {help}"));
    }

    /// Adds a metric without a unit. The labels of each sample are in braces, or empty.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str, samples: &[(&str, u64)]) {
        self.describe(name, kind, "", help);
        let suffix = if kind == "counter" { "_total" } else { "" };
        for (labels, value) in samples {
            self.write(format_args!("sockserver_{name}{suffix}{labels} {value}"));
        }
    }

    /// Adds a gauge, unless there are no samples.
    pub(crate) fn gauges(&mut self, name: &str, unit: &str, help: &str, samples: &[(String, u64)]) {
        if samples.is_empty() {
            return;
        }
        self.describe(name, "gauge", unit, help);
        for (labels, value) in samples {
            self.write(format_args!("sockserver_{name}{labels} {value}"));
        }
    }

    fn bytes(&mut self, name: &str, help: &str, bytes: u64) {
        self.describe(name, "counter", "bytes", help);
        self.write(format_args!("sockserver_{name}_total {bytes}"));
    }

    fn histogram(&mut self, name: &str, help: &str, durations: &DurationHistogram) {
        self.describe(name, "histogram", "seconds", help);
        for (bound, count) in durations.buckets() {
            let bound = bound.map_or("+Inf".to_owned(), |bound| format!("{:?}", bound.as_secs_f64()));
            self.write(format_args!("sockserver_{name}_bucket{{le=\"{bound}\"}} {count}"));
        }
        self.write(format_args!("sockserver_{name}_count {}", durations.count()));
        self.write(format_args!("sockserver_{name}_sum {:?}", durations.sum().as_secs_f64()));
    }

    fn write(&mut self, line: Arguments<'_>) {
        // Writing into a string does not fail.
        let _ = writeln!(self.0, "{line}");
    }

    /// Returns the text.
    pub(crate) fn finish(mut self) -> String {
        self.0.push_str("# EOF\n");
        self.0
    }
}

impl Stats {
    /// Returns these numbers in the text format of OpenMetrics 1.0, which Prometheus scrapes. Not in
    /// Python.
    ///
    /// The text has no gauges of the server's state, listeners, threads and processes:
    /// [`ServerHandle::to_openmetrics`](crate::ServerHandle::to_openmetrics) has them too.
    ///
    /// The content type is `application/openmetrics-text; version=1.0.0; charset=utf-8`. The text
    /// ends with `# EOF`. The names of the metrics begin with `sockserver_`. The outcome of a request
    /// and the deadline that has expired are labels.
    ///
    /// # Examples
    ///
    /// ```
    /// let text = sockserver::Stats::default().to_openmetrics();
    /// assert!(text.contains("\nsockserver_accepted_total 0\n"));
    /// ```
    #[must_use]
    pub fn to_openmetrics(&self) -> String {
        let mut text = OpenMetrics::default();
        self.write_openmetrics(&mut text);
        text.finish()
    }

    /// Adds the metrics, in the order in which an operator reads them.
    pub(crate) fn write_openmetrics(&self, text: &mut OpenMetrics) {
        let Stats { accepted, in_flight, idle, lost_before_accept, .. } = *self;
        let TimedOut { proxy_header, wrap, first_byte, idle: idle_deadline, read, write, request } =
            self.timed_out;
        text.family(
            "accepted",
            "counter",
            "Connections and datagrams that were accepted.",
            &[("", accepted)],
        );
        text.family(
            "ended",
            "counter",
            "Connections and datagrams that have ended, by outcome.",
            &[
                ("{outcome=\"finished\"}", self.finished),
                ("{outcome=\"failed\"}", self.failed),
                ("{outcome=\"disconnected\"}", self.disconnected),
                ("{outcome=\"panicked\"}", self.panicked),
                ("{outcome=\"rejected\"}", self.rejected),
                ("{outcome=\"timed_out\"}", self.timed_out.total()),
                ("{outcome=\"aborted\"}", self.aborted),
            ],
        );
        text.family(
            "denied",
            "counter",
            "Connections and datagrams that were rejected because of their address, by reason.",
            &[("{reason=\"access_list\"}", self.denied), ("{reason=\"accept_rate\"}", self.rate_limited)],
        );
        text.family(
            "timed_out",
            "counter",
            "Connections that a deadline ended, by deadline.",
            &[
                ("{deadline=\"proxy_header\"}", proxy_header),
                ("{deadline=\"wrap\"}", wrap),
                ("{deadline=\"first_byte\"}", first_byte),
                ("{deadline=\"idle\"}", idle_deadline),
                ("{deadline=\"read\"}", read),
                ("{deadline=\"write\"}", write),
                ("{deadline=\"request\"}", request),
            ],
        );
        text.family("requests", "counter", "Requests that handlers have served.", &[("", self.requests)]);
        text.histogram(
            "request_duration_seconds",
            "Time from the first byte of a request until its handler returned.",
            &self.request_duration,
        );
        text.bytes("received_bytes", "Bytes received from clients.", self.bytes_received);
        text.bytes("sent_bytes", "Bytes sent to clients.", self.bytes_sent);
        text.family(
            "lost_before_accept",
            "counter",
            "Connections that failed before they were accepted.",
            &[("", lost_before_accept)],
        );
        text.family(
            "in_flight",
            "gauge",
            "Connections and datagrams that have not ended.",
            &[("", in_flight)],
        );
        text.family(
            "idle",
            "gauge",
            "Connections in flight that wait for their next request.",
            &[("", idle)],
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::limits::stats::STATS_WORDS;

    #[test]
    fn each_counter_is_in_the_text_once_and_the_outcomes_add_up() {
        // Each counter has a value of its own.
        let stats = Stats::from_words(std::array::from_fn(|place| 1 << place));
        let text = stats.to_openmetrics();
        let (samples, comments): (Vec<_>, Vec<_>) = text.lines().partition(|line| !line.starts_with('#'));
        assert_eq!(comments.last(), Some(&"# EOF"));
        let samples: Vec<(&str, u64)> = samples
            .iter()
            .filter(|line| !line.contains("request_duration"))
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect();
        let names: HashSet<&str> = samples.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), samples.len());
        for place in 0..STATS_WORDS {
            let found = samples.iter().filter(|(_, value)| *value == 1 << place).count();
            assert_eq!(found, 1, "counter {place} in {text}");
        }
        let sum = |family: &str| {
            samples.iter().filter(|(name, _)| name.starts_with(family)).map(|(_, value)| value).sum::<u64>()
        };
        assert_eq!(sum("sockserver_timed_out_total{"), stats.timed_out.total());
        let ended = Stats { accepted: sum("sockserver_ended_total{") + stats.in_flight, ..stats };
        assert!(ended.is_consistent(), "an outcome is missing in {text}");
    }

    #[test]
    fn the_text_has_the_form_of_openmetrics() {
        let text = Stats { accepted: 3, finished: 2, in_flight: 1, ..Stats::default() }.to_openmetrics();
        let begin = "# TYPE sockserver_accepted counter\n\
                     # HELP sockserver_accepted Connections and datagrams that were accepted.\n\
                     sockserver_accepted_total 3\n\
                     # TYPE sockserver_ended counter\n";
        assert!(text.starts_with(begin), "{text}");
        assert!(text.contains("\nsockserver_ended_total{outcome=\"finished\"} 2\n"), "{text}");
        assert!(text.ends_with("\nsockserver_idle 0\n# EOF\n"), "{text}");
        assert!(!text.contains("\n\n"));
    }
}
