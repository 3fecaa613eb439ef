//! The promise: a recorder of the crate `metrics` gets the counters, gauges and durations of a server.

mod support;

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use parking_lot::Mutex;
use sockserver::{MetricsReporter, ThreadingTCPServer, handler_fn, testing};

use support::{LOOPBACK, read_to_end, wait_for_stats};

/// The values by their name and labels, and the descriptions by their name.
#[derive(Clone, Default)]
struct Recorded {
    values: Arc<Mutex<HashMap<String, f64>>>,
    descriptions: Arc<Mutex<HashMap<String, String>>>,
}

struct Value(Recorded, String);

impl CounterFn for Value {
    fn increment(&self, _: u64) {
        panic!("the values are absolute");
    }
    fn absolute(&self, value: u64) {
        self.0.values.lock().insert(self.1.clone(), value as f64);
    }
}

impl GaugeFn for Value {
    fn increment(&self, _: f64) {
        panic!("the values are absolute");
    }
    fn decrement(&self, _: f64) {
        panic!("the values are absolute");
    }
    fn set(&self, value: f64) {
        self.0.values.lock().insert(self.1.clone(), value);
    }
}

impl HistogramFn for Value {
    fn record(&self, value: f64) {
        *self.0.values.lock().entry(format!("{} {value}", self.1)).or_default() += 1.0;
    }
}

impl Recorded {
    fn value(&self, key: &Key) -> Arc<Value> {
        let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
        Arc::new(Value(self.clone(), key.name().to_owned() + &labels.collect::<String>()))
    }

    fn get(&self, name: &str) -> f64 {
        let values = self.values.lock();
        *values.get(name).unwrap_or_else(|| panic!("{name} is not in {values:#?}"))
    }

    fn describe(&self, name: &KeyName, description: &SharedString) {
        self.descriptions.lock().insert(name.as_str().to_owned(), description.to_string());
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }
    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }
    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.value(key))
    }
}

#[test]
fn a_recorder_gets_the_numbers_of_a_server() {
    let builder = ThreadingTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
        .duration_buckets([std::time::Duration::from_secs(600)]);
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    let mut reporter = MetricsReporter::new(server.handle());
    let recorded = Recorded::default();
    for connections in 1..=3 {
        assert_eq!(read_to_end(&server.connect().unwrap()), "hello");
        wait_for_stats(server.handle(), |stats| stats.finished == connections);
        metrics::with_local_recorder(&recorded, || reporter.report());
        let connections = connections as f64;
        assert_eq!(recorded.get("sockserver_accepted_total"), connections);
        assert_eq!(recorded.get("sockserver_ended_total outcome=finished"), connections);
        assert_eq!(recorded.get("sockserver_sent_bytes_total"), connections * 5.0);
        assert_eq!(recorded.get("sockserver_request_duration_seconds 600"), connections);
        assert_eq!(recorded.get("sockserver_ready"), 1.0);
    }
    let description = recorded.descriptions.lock()["sockserver_accepted_total"].clone();
    assert_eq!(description, "Connections and datagrams that were accepted.");
    let listener = format!("sockserver_listener_backlog address={}", server.address());
    let handle = server.handle().clone();
    drop(server);
    metrics::with_local_recorder(&recorded, || reporter.report());
    assert_eq!(recorded.get("sockserver_ready"), 0.0);
    if cfg!(target_os = "linux") {
        assert_eq!(recorded.get(&listener), 0.0, "the listener is closed");
    }
    assert_eq!(recorded.get("sockserver_requests_total"), handle.stats().requests as f64);
}
