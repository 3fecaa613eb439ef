//! Reads the metrics of a server while it is replaced.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sock::{Address, SOCK_STREAM, Socket};

use crate::support::{LIMIT, wait_until};

/// Reads the numbers of a server all the time, until its administrative listener is closed.
pub(super) struct Scraper {
    scrapes: Arc<AtomicU64>,
    stops: Arc<AtomicBool>,
    scraping: JoinHandle<Vec<String>>,
}

pub(super) type Samples = HashMap<String, f64>;

impl Scraper {
    /// `ready`: the server is ready until the scraper stops.
    pub(super) fn start(address: Address, ready: bool) -> Scraper {
        let (scrapes, stops) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, is_over) = (Arc::clone(&scrapes), Arc::clone(&stops));
        let scraping = thread::spawn(move || {
            let (mut before, mut failures) = (Samples::new(), Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                let Ok(text) = scrape(&address) else {
                    if ready {
                        failures.push("the administrative listener is closed".to_owned());
                    }
                    break;
                };
                let samples = samples(&text);
                if let Err(fault) = check_samples(&samples, &before, ready) {
                    failures.push(format!("{fault}: {text}"));
                }
                before = samples;
                counter.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
            failures
        });
        Scraper { scrapes, stops, scraping }
    }

    /// Waits for two more scrapes, of which the second one begins later.
    #[track_caller]
    pub(super) fn wait(&self) {
        let enough = self.scrapes.load(Ordering::Relaxed) + 2;
        let is_over = || self.scraping.is_finished();
        wait_until("it is scraped", || is_over() || self.scrapes.load(Ordering::Relaxed) >= enough);
    }

    #[track_caller]
    pub(super) fn stop(self) {
        self.stops.store(true, Ordering::Relaxed);
        let failures = self.scraping.join().unwrap();
        assert_eq!(failures, [""; 0]);
        assert_ne!(self.scrapes.load(Ordering::Relaxed), 0);
    }
}

/// Returns the numbers of a server, or an error if it accepts no scrape any more.
pub(super) fn scrape(address: &Address) -> io::Result<String> {
    let client = Socket::new(address.family(), SOCK_STREAM, 0)?;
    client.settimeout(LIMIT)?;
    client.connect(address)?;
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    client.makefile_rb().read_to_string(&mut text)?;
    if text.ends_with("# EOF\n") { Ok(text) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Returns the samples of a scrape, by their name and labels.
pub(super) fn samples(text: &str) -> Samples {
    let lines = text.lines().filter(|line| line.starts_with("sockserver_"));
    let samples = lines.map(|line| line.rsplit_once(' ').unwrap());
    samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// Checks that the samples of one scrape fit together, and to those of the scrape before.
fn check_samples(samples: &Samples, before: &Samples, ready: bool) -> Result<(), String> {
    let value = |name: &str| samples[&format!("sockserver_{name}")];
    let ended = samples.iter().filter(|(name, _)| name.starts_with("sockserver_ended_total{"));
    if value("accepted_total") != ended.map(|(_, value)| value).sum::<f64>() + value("in_flight") {
        return Err("accepted_total is not the sum of ended_total and in_flight".to_owned());
    }
    if value("requests_total") != value("request_duration_seconds_count") {
        return Err("requests_total is not the number of durations".to_owned());
    }
    if ready && value("ready") != 1.0 {
        return Err("the server is not ready".to_owned());
    }
    let counters = before.iter().filter(|(name, _)| name.contains("_total"));
    let mut decreased = counters.filter(|(name, value)| samples[*name] < **value);
    decreased.next().map_or(Ok(()), |(name, value)| Err(format!("{name} was {value}")))
}
