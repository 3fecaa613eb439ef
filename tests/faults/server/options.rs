//! The command line: `CLASS ADDRESS NAME=VALUE…`.

use std::collections::HashMap;
use std::time::Duration;

/// The options of the command line.
pub(crate) struct Options {
    pub(crate) class: String,
    pub(crate) address: String,
    named: HashMap<String, String>,
}

impl Options {
    pub(crate) fn from_command_line() -> Options {
        let mut arguments = std::env::args().skip(1);
        let class = arguments.next().expect("a class");
        let address = arguments.next().expect("an address");
        let named = arguments.map(|argument| {
            let (name, value) = argument.split_once('=').expect("NAME=VALUE");
            (name.to_owned(), value.to_owned())
        });
        Options { class, address, named: named.collect() }
    }

    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.named.get(name).map(|value| value.parse().expect("a number"))
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.named.get(name).cloned()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.number(name).unwrap_or(0) > 0
    }

    /// Returns `None` if the option is missing, `Some(None)` if it is `off`.
    pub(crate) fn deadline(&self, name: &str) -> Option<Option<Duration>> {
        let value = self.named.get(name)?;
        if value == "off" {
            return Some(None);
        }
        Some(Some(Duration::from_millis(value.parse().expect("milliseconds"))))
    }
}
