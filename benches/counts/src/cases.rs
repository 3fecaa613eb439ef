//! The cases that are counted, and the recorded counts.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Which program has the server and makes the requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `ours` and `load`.
    Ours,
    /// `https`: requests over TLS.
    Https,
}

/// A server and the kind of its requests.
pub(crate) struct Case {
    pub(crate) model: &'static str,
    /// The load generator's `--kind`.
    pub(crate) kind: &'static str,
    /// Requests of a round, all of which arrive before the server begins.
    pub(crate) connections: usize,
    /// Additional arguments of the server.
    pub(crate) words: &'static [&'static str],
    /// The program of the server and of the load.
    pub(crate) program: Program,
    /// Whether instructions are counted. Those of a parent depend on when its children exit,
    /// so they are not.
    pub(crate) instructions: bool,
}

impl Case {
    pub(crate) fn all() -> Vec<Case> {
        let case = |model, kind, connections| {
            let (program, words) = (Program::Ours, &[][..]);
            Case { model, kind, connections, words, program, instructions: true }
        };
        vec![
            // One connection at a time, because a second one would wait indefinitely.
            case("tcp", "echo", 1),
            case("tcp", "short", 32),
            case("threading", "echo", 64),
            case("threading", "short", 32),
            Case { instructions: false, ..case("forking", "short", 16) },
            case("udp", "udp", 64),
            case("udp-batch", "udp", 64),
            Case { words: &["--workers", "64"], ..case("pool", "echo", 64) },
            // With several, the scheduler decides which of them wait without result.
            Case { words: &["--workers", "1"], ..case("pool", "short", 32) },
            Case { words: &["--workers", "2"], instructions: false, ..case("prefork", "short", 32) },
            Case { words: &["--workers", "1"], ..case("selector", "echo", 64) },
            Case { words: &["--workers", "1"], ..case("selector", "short", 32) },
            Case { words: &["--workers", "1"], ..case("selector-unix", "echo", 64) },
            // Most instructions are those of the cryptography, which depend on the processor.
            Case { program: Program::Https, instructions: false, ..case("selector-tls", "https", 16) },
        ]
    }

    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.model, self.kind)
    }
}

/// The costs of one request.
#[derive(Clone)]
pub(crate) struct Figures {
    pub(crate) calls: f64,
    /// Voluntary context switches.
    pub(crate) waits: f64,
    /// Instructions in user space.
    pub(crate) instructions: Option<f64>,
}

impl Figures {
    pub(crate) fn show(&self) -> String {
        let instructions = self.instructions.map_or("-".into(), |number| format!("{number:.0}"));
        format!("{:16.2} {:16.2} {instructions:>24}", self.calls, self.waits)
    }
}

/// The file of the recorded counts, with lines `calls NAME = CALLS WAITS` and
/// `instructions RUSTC NAME = NUMBER`.
pub(crate) struct Recorded {
    calls: BTreeMap<String, (f64, f64)>,
    instructions: BTreeMap<(String, String), f64>,
}

impl Recorded {
    pub(crate) fn parse(text: &str) -> Result<Recorded, String> {
        let mut recorded = Recorded { calls: BTreeMap::new(), instructions: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            recorded.parse_line(line).ok_or_else(|| format!("invalid line in counts.txt: {line}"))?;
        }
        Ok(recorded)
    }

    fn parse_line(&mut self, line: &str) -> Option<()> {
        let (what, figures) = line.split_once('=')?;
        let figures: Vec<f64> =
            figures.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let (kind, rest) = what.trim().split_once(' ')?;
        match (kind, figures.as_slice()) {
            ("calls", &[calls, waits]) => {
                self.calls.insert(rest.to_owned(), (calls, waits));
            }
            ("instructions", &[number]) => {
                let (compiler, name) = rest.split_once(' ')?;
                self.instructions.insert((compiler.to_owned(), name.to_owned()), number);
            }
            _ => return None,
        }
        Some(())
    }

    pub(crate) fn calls_and_waits(&self, name: &str) -> Option<(f64, f64)> {
        self.calls.get(name).copied()
    }

    pub(crate) fn instructions(&self, compiler: &str, name: &str) -> Option<f64> {
        self.instructions.get(&(compiler.to_owned(), name.to_owned())).copied()
    }

    pub(crate) fn set(&mut self, compiler: &str, counted: BTreeMap<String, Figures>) {
        for (name, figures) in counted {
            self.calls.insert(name.clone(), (figures.calls, figures.waits));
            if let Some(number) = figures.instructions {
                self.instructions.insert((compiler.to_owned(), name), number);
            }
        }
    }

    pub(crate) fn render(&self) -> String {
        let mut text = String::from(
            "# The costs of a request of our servers, with which scripts/counts compares.\n\
             # Written by scripts/counts --record.\n\n\
             # System calls and waits of one request.\n",
        );
        for (name, (calls, waits)) in &self.calls {
            let _ = writeln!(text, "calls {name} = {calls:.2} {waits:.2}");
        }
        text.push_str("\n# Instructions of one request in user space, by compiler.\n");
        for ((compiler, name), number) in &self.instructions {
            let _ = writeln!(text, "instructions {compiler} {name} = {number:.0}");
        }
        text
    }
}
