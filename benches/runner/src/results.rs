//! The results of all rounds of a mode, and the statistics made of them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::measure::{Counts, Report};

/// All measurements of a mode: one per server and round.
#[derive(Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) mode: String,
    pub(crate) pinned: bool,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) servers: Vec<Rounds>,
    #[serde(alias = "left_out")]
    pub(crate) skipped: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Rounds {
    pub(crate) name: String,
    pub(crate) ours: bool,
    /// `None` for a round that failed.
    pub(crate) reports: Vec<Option<Report>>,
    pub(crate) counts: Option<Counts>,
    pub(crate) failure: Option<String>,
}

/// Reads a value from a report.
pub(crate) type Value = fn(&Report) -> f64;

pub(crate) const RATE: Value = |report| report.rate;
pub(crate) const CPU: Value = |report| report.cpu;
pub(crate) const P50: Value = |report| report.p50;
pub(crate) const P99: Value = |report| report.p99;
pub(crate) const SWITCHES: Value = |report| report.switches;

/// A median with the minimum and the maximum.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Results {
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}.json", self.mode));
        fs::write(path, serde_json::to_string_pretty(self)?)
    }

    /// Loads all saved results, by mode.
    pub(crate) fn load_all(folder: &Path) -> BTreeMap<String, Results> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
        let results = texts.filter_map(|text| serde_json::from_str::<Results>(&text).ok());
        results.map(|results| (results.mode.clone(), results)).collect()
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Rounds> {
        self.servers.iter().find(|server| server.name == name)
    }

    /// Returns the reference, to which all ratios of the table refer: the first server.
    pub(crate) fn reference(&self) -> Option<&Rounds> {
        self.servers.first().filter(|server| server.median(RATE).is_some())
    }

    /// Returns the servers that were measured, ordered by CPU time.
    pub(crate) fn ranked(&self) -> Vec<&Rounds> {
        let mut servers: Vec<_> =
            self.servers.iter().filter(|server| server.median(CPU).is_some()).collect();
        servers.sort_by(|a, b| a.median(CPU).partial_cmp(&b.median(CPU)).expect("times are numbers"));
        servers
    }
}

impl Rounds {
    pub(crate) fn median(&self, value: Value) -> Option<f64> {
        spread(self.reports.iter().flatten().map(value).collect()).map(|spread| spread.median)
    }

    /// Returns the median of the ratios of all rounds. A disturbance of a round affects both
    /// servers.
    pub(crate) fn ratio(&self, other: &Rounds, value: Value) -> Option<Spread> {
        let pairs = self.reports.iter().zip(&other.reports);
        let both = pairs.filter_map(|(ours, theirs)| Some((ours.as_ref()?, theirs.as_ref()?)));
        let ratios = both.map(|(ours, theirs)| value(ours) / value(theirs));
        spread(ratios.filter(|ratio| ratio.is_finite()).collect())
    }

    /// Returns the number of rounds in which other processes hardly used the machine.
    pub(crate) fn quiet(&self) -> usize {
        self.reports.iter().flatten().filter(|report| is_quiet(report)).count()
    }
}

/// Returns whether other processes used less than a seventh of a CPU.
pub(crate) fn is_quiet(report: &Report) -> bool {
    report.other_cores < 0.15
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median =
        if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    Some(Spread { median, min, max })
}
