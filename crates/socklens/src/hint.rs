//! What `sock` logs at the target `sock::hint` during the calls of a scenario.

use std::cell::RefCell;

use log::{LevelFilter, Log, Metadata, Record};

/// Hints of one call.
const MOST: usize = 8;

thread_local! {
    /// A hint is logged by the thread that makes the call.
    static HINTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Collector;

impl Log for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sock::hint"
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        HINTS.with_borrow_mut(|hints| {
            if hints.len() < MOST {
                hints.push(record.args().to_string());
            }
        });
    }

    fn flush(&self) {}
}

/// Collects hints from now on, unless the program has a logger of its own.
pub(crate) fn collect() {
    if log::set_logger(&Collector).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
}

/// Returns the hints of this thread since the last call.
pub(crate) fn take() -> Vec<String> {
    HINTS.with_borrow_mut(std::mem::take)
}
