//! The numbers of a server in the recorder of the crate `metrics`.

use std::collections::HashSet;
use std::fmt;

use metrics::{Label, SharedString};

use crate::lifecycle::handle::ServerHandle;
use crate::limits::durations::DurationHistogram;

/// Records the numbers of a server with the crate [`metrics`], under the names of
/// [`ServerHandle::to_openmetrics`]. Feature `metrics`.
///
/// Nothing is recorded while requests are served: each [`report`](Self::report) reads the numbers of
/// the whole server and sets them in the recorder of this process. Counters are absolute. A request is
/// recorded in the histogram with the upper bound of its bucket, and one beyond all bounds with twice
/// the highest, so a recorder with the same buckets has the same counts.
///
/// Worker processes and forked children have copies of the recorder, whose numbers nothing collects.
/// Report in the server's process only, such as from
/// [`service_actions`](crate::Builder::service_actions), which a forking or prefork server calls in
/// the parent.
///
/// # Examples
///
/// ```
/// use std::sync::Mutex;
/// use sockserver::{MetricsReporter, TCPServer, handler_fn};
///
/// let reporter = Mutex::new(None);
/// let server = TCPServer::builder(handler_fn(|_| Ok(())))
///     .service_actions(move |server| {
///         let mut reporter = reporter.lock().unwrap();
///         reporter.get_or_insert_with(|| MetricsReporter::new(server)).report();
///     })
///     .bind(("127.0.0.1", 0))?;
/// # std::io::Result::Ok(())
/// ```
pub struct MetricsReporter {
    server: ServerHandle,
    /// Those that were recorded.
    durations: DurationHistogram,
    /// The gauges with labels that were set, as name and labels of their samples.
    gauges: HashSet<String>,
    is_described: bool,
}

impl MetricsReporter {
    /// Creates a reporter for a server.
    ///
    /// See the example of [`MetricsReporter::report`].
    #[must_use]
    pub fn new(server: &ServerHandle) -> MetricsReporter {
        MetricsReporter {
            server: server.clone(),
            durations: DurationHistogram::default(),
            gauges: HashSet::new(),
            is_described: false,
        }
    }

    /// Sets the counters and gauges to those of the server, and records the durations of requests
    /// since the last call. The gauges of a worker process that has exited are set to 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{MetricsReporter, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let mut reporter = MetricsReporter::new(&server.handle());
    /// // Without a recorder it has no effect. A program installs one, such as that of
    /// // `metrics-exporter-prometheus`, and calls this every few seconds.
    /// reporter.report();
    /// # std::io::Result::Ok(())
    /// ```
    pub fn report(&mut self) {
        // The text has all names, labels and values, so both exports are alike.
        let text = self.server.to_openmetrics();
        let (mut name, mut kind, mut gauges) = ("", "", HashSet::new());
        for line in text.lines() {
            if let Some(metric) = line.strip_prefix("# TYPE ") {
                (name, kind) = metric.split_once(' ').unwrap_or((metric, ""));
            } else if let Some(help) = line.strip_prefix("# HELP ") {
                let help = help.strip_prefix(name).unwrap_or(help).trim_start();
                self.describe(name, kind, help);
            } else if let Some((series, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
                let (name, labels) = split(series);
                match kind {
                    "counter" => {
                        let value = value.parse().unwrap_or_default();
                        metrics::counter!(name.to_owned(), labels).absolute(value);
                    }
                    "gauge" => {
                        if !labels.is_empty() {
                            gauges.insert(series.to_owned());
                        }
                        metrics::gauge!(name.to_owned(), labels).set(value.parse().unwrap_or(0.0));
                    }
                    _ => {}
                }
            }
        }
        for series in self.gauges.difference(&gauges) {
            let (name, labels) = split(series);
            metrics::gauge!(name.to_owned(), labels).set(0.0);
        }
        (self.gauges, self.is_described) = (gauges, true);
        self.record_durations();
    }

    fn describe(&self, name: &str, kind: &str, help: &str) {
        if self.is_described {
            return;
        }
        let help = SharedString::from(help.to_owned());
        match kind {
            "counter" => metrics::describe_counter!(format!("{name}_total"), help),
            "gauge" => metrics::describe_gauge!(name.to_owned(), help),
            _ => metrics::describe_histogram!(name.to_owned(), help),
        }
    }

    fn record_durations(&mut self) {
        let durations = self.server.stats().request_duration;
        let histogram = metrics::histogram!("sockserver_request_duration_seconds");
        let (mut sum, mut former_sum, mut highest) = (0, 0, 0.0);
        let former = std::mem::replace(&mut self.durations, durations);
        // Before the first report the buckets may be others, which are all empty.
        let mut former = former.buckets().map(|(_, count)| count);
        for (bound, count) in durations.buckets() {
            let former_count = former.next().unwrap_or(former_sum);
            let (in_bucket, before) = (count - sum, former_count.saturating_sub(former_sum));
            (sum, former_sum) = (count, former_count);
            highest = bound.map_or(highest * 2.0, |bound| bound.as_secs_f64());
            let new = usize::try_from(in_bucket.saturating_sub(before)).unwrap_or(usize::MAX);
            if new > 0 {
                histogram.record_many(highest, new);
            }
        }
    }
}

/// Splits a sample's name and labels.
fn split(series: &str) -> (&str, Vec<Label>) {
    let Some((name, label)) = series.split_once('{') else { return (series, Vec::new()) };
    // Each sample has at most one.
    let label = label.strip_suffix("\"}").and_then(|label| label.split_once("=\""));
    let labels = label.map(|(key, value)| Label::new(key.to_owned(), unescape(value)));
    (name, labels.into_iter().collect())
}

fn unescape(value: &str) -> String {
    let (mut text, mut characters) = (String::new(), value.chars());
    while let Some(character) = characters.next() {
        text.push(match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => '\n',
                other => other.unwrap_or('\\'),
            },
            (character, _) => character,
        });
    }
    text
}

impl fmt::Debug for MetricsReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsReporter").field("server", &self.server).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_of_a_sample_are_read_as_they_were_written() {
        assert_eq!(split("a_total"), ("a_total", vec![]));
        let label = |key: &'static str, value: &'static str| vec![Label::new(key, value)];
        assert_eq!(split("a{pid=\"7\"}"), ("a", label("pid", "7")));
        let escaped = "a{address=\"/tmp/\\\"b\\\\c\\nd\"}";
        assert_eq!(split(escaped), ("a", label("address", "/tmp/\"b\\c\nd")));
    }
}
