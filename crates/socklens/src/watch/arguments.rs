//! The arguments of `socklens watch`.

use crate::command;
use crate::event::HostName;
use crate::lab::Tier;
use crate::scenario::closest::suggestion;
use crate::sys::calls::CALLS;
use crate::watch::tracer::Hold;

/// Bytes of a recording, unless another limit is given.
const RECORDING: usize = 32 << 20;

/// Bytes of memory of all programs, unless another limit is given.
const MEMORY: u64 = 2 << 30;
/// Without so many descriptors a program cannot load its libraries.
const FEWEST: u64 = 8;
/// Descriptors of a process, unless another limit is given.
const DESCRIPTORS: u64 = 4096;

const OPTIONS: [&str; 15] = [
    "--a",
    "--b",
    "--hold",
    "--hold-packets",
    "--stdin",
    "--stay",
    "--all",
    "--tier",
    "--quiet",
    "--jsonl",
    "--pcapng",
    "--html",
    "--max-recording",
    "--max-memory",
    "--max-descriptors",
];

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) text: String,
    /// At least one.
    pub(crate) words: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Arguments {
    /// The programs of A and B.
    pub(crate) commands: [Option<Words>; 2],
    pub(crate) holds: Vec<Hold>,
    pub(crate) holds_packets: bool,
    /// The host whose program reads the standard input.
    pub(crate) input: Option<HostName>,
    /// Whether B goes on after the end of A.
    pub(crate) stays: bool,
    pub(crate) shows_all: bool,
    pub(crate) tier: Option<Tier>,
    pub(crate) is_quiet: bool,
    pub(crate) jsonl: Option<String>,
    pub(crate) pcapng: Option<String>,
    pub(crate) html: Option<String>,
    /// Bytes.
    pub(crate) max_recording: usize,
    /// Bytes.
    pub(crate) max_memory: u64,
    pub(crate) max_descriptors: u64,
}

impl Arguments {
    /// What runs, for a title.
    pub(crate) fn title(&self) -> String {
        let commands = HostName::BOTH.into_iter().zip(&self.commands);
        let commands = commands.filter_map(|(host, command)| Some((host, command.as_ref()?)));
        let commands: Vec<_> =
            commands.map(|(host, command)| format!("{host}: {}", command.text)).collect();
        commands.join(", ")
    }

    /// Keeps every call, unless calls are named.
    pub(crate) fn hold_by_default(&mut self) {
        if self.holds.is_empty() {
            self.holds.push(Hold { host: None, call: "all".to_owned() });
        }
    }
}

/// A number of bytes, or one such as 64M.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().next_back() {
        Some((end, 'K')) => (&text[..end], 1 << 10),
        Some((end, 'M')) => (&text[..end], 1 << 20),
        Some((end, 'G')) => (&text[..end], 1 << 30),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    number.ok_or_else(|| format!("{text:?} is not a number of bytes, such as 1000000, 512K, 64M or 2G"))
}

/// A number of bytes in the largest unit without a rest.
pub(crate) fn shown(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes >= 1 << shift && bytes % (1 << shift) == 0);
    unit.map_or_else(|| format!("{bytes} bytes"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

fn words(option: &str, text: &str) -> Result<Words, String> {
    if text.trim().is_empty() {
        return Err(format!("{option} needs a program"));
    }
    let words = command::split(text).map_err(|problem| format!("{option}: {problem}"))?;
    Ok(Words { text: text.to_owned(), words })
}

/// Reads the calls of `--hold`: names, with or without a host before them.
fn holds(text: &str) -> Result<Vec<Hold>, String> {
    // How send(2) and recv(2) are shown, which are no calls of the system.
    const OTHER: [&str; 3] = ["all", "send", "recv"];
    let known = || CALLS.iter().map(|(_, _, name)| *name).chain(OTHER);
    let hold = |word: &str| {
        let (host, call) = match word.split_once('.') {
            Some((name, call)) => {
                let host = HostName::parse(&name.to_uppercase());
                (Some(host.ok_or_else(|| format!("--hold: {name:?} is not a host"))?), call)
            }
            None => (None, word),
        };
        if !known().any(|name| name == call) {
            let hint = suggestion(call, known());
            return Err(format!("--hold: {call:?} is not a call that is watched{hint}"));
        }
        Ok(Hold { host, call: call.to_owned() })
    };
    text.split(',').map(|word| hold(word.trim())).collect()
}

pub(crate) fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let mut parsed = Arguments {
        max_recording: RECORDING,
        max_memory: MEMORY,
        max_descriptors: DESCRIPTORS,
        ..Arguments::default()
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--a" | "--b" => {
                let place = usize::from(argument == "--b");
                if parsed.commands[place].is_some() {
                    return Err(format!("{argument} is there twice, and each host runs one program"));
                }
                parsed.commands[place] = Some(words(argument, &value()?)?);
            }
            "--hold" => parsed.holds.extend(holds(&value()?)?),
            "--hold-packets" => parsed.holds_packets = true,
            "--stdin" => {
                let name = value()?;
                let host = HostName::parse(&name.to_uppercase());
                parsed.input = Some(host.ok_or_else(|| format!("--stdin: {name:?} is not a host"))?);
            }
            "--stay" => parsed.stays = true,
            "--all" => parsed.shows_all = true,
            "--tier" => {
                let name = value()?;
                let tier = Tier::parse(&name);
                parsed.tier = Some(tier.ok_or_else(|| format!("{name:?} is not veth, tun or loopback"))?);
            }
            "--quiet" | "-q" => parsed.is_quiet = true,
            "--jsonl" => parsed.jsonl = Some(value()?),
            "--pcapng" => parsed.pcapng = Some(value()?),
            "--html" => parsed.html = Some(value()?),
            "--max-recording" => {
                parsed.max_recording = usize::try_from(size(&value()?)?).unwrap_or(usize::MAX);
            }
            "--max-memory" => parsed.max_memory = size(&value()?)?,
            "--max-descriptors" => {
                let text = value()?;
                let number = text.parse().ok().filter(|number| *number >= FEWEST);
                parsed.max_descriptors = number
                    .ok_or_else(|| format!("{text:?} is not a number of descriptors from {FEWEST}"))?;
            }
            option if option.starts_with('-') => {
                let hint = suggestion(option, OPTIONS);
                return Err(format!("watch has no option {option}{hint}; socklens help prints the usage"));
            }
            other => {
                return Err(format!("{other:?} is not an option; a program is the value of --a or --b"));
            }
        }
    }
    if parsed.commands.iter().all(Option::is_none) {
        return Err("watch needs a program: --a COMMAND, --b COMMAND, or both".to_owned());
    }
    if parsed.input.is_some() && (parsed.holds_packets || !parsed.holds.is_empty()) {
        return Err(
            "with --hold and --hold-packets the standard input has commands, so --stdin is not possible"
                .to_owned(),
        );
    }
    Ok(parsed)
}
