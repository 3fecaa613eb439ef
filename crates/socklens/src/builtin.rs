//! The scenarios that come with the program.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::scenario::Scenario;
use crate::scenario::closest::suggestion;

/// A scenario that comes with the program.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! builtin {
    ($($name:literal)*) => {
        &[$(Builtin { name: $name, text: include_str!(concat!("../scenarios/", $name, ".scn")) }),*]
    };
}

/// The built-in scenarios, in the order of a course.
pub const BUILTIN: &[Builtin] = builtin! {
    "hello"
    "blocked"
    "half_close"
    "time_wait"
    "backlog"
    "lost_segment"
    "slow_reader"
    "reset"
    "dead_peer"
    "delayed_ack"
    "simultaneous_close"
    "simultaneous_open"
    "handshake"
    "refused"
    "states_wire"
    "states_loopback"
    "framing"
    "partial_send"
    "readiness"
    "timeouts"
    "connect_timeout"
    "nagle"
    "syn_recv"
    "reuse_address"
    "linger_reset"
    "orphan"
    "udp_loss"
    "udp_truncation"
    "udp_refused"
    "unix_stream"
    "unix_datagram"
    "unix_path"
    "unix_descriptors"
    "reuse_port"
    "mapped"
    "multicast"
    "shared_socket"
    "inherited"
    "emfile"
};

/// Bytes that a scenario may have.
const LARGEST: u64 = 1 << 20;

fn read(name: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(name)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    let wrong = |problem: &str| io::Error::new(io::ErrorKind::InvalidData, problem);
    if bytes.len() as u64 > LARGEST {
        return Err(wrong("it has more than 1 MiB, so it is no scenario"));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not a text in UTF-8"))?;
    if text.contains('\0') {
        return Err(wrong("it is not a text, because it has zero bytes"));
    }
    // Editors of Windows write a byte order mark.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Reads a file, or a built-in scenario.
pub(crate) fn load(name: &str) -> Result<Scenario, String> {
    let is_file = name.contains('/') || name.ends_with(".scn") || Path::new(name).is_file();
    let builtin = BUILTIN.iter().find(|builtin| builtin.name == name);
    let (title, text) = match builtin.filter(|_| !is_file) {
        Some(builtin) => (name.to_owned(), builtin.text.to_owned()),
        None => {
            let text = read(name).map_err(|error| {
                let names = BUILTIN.iter().map(|builtin| builtin.name);
                let hint = match is_file {
                    true => String::new(),
                    false => suggestion(name, names) + "; socklens list prints the built-in scenarios",
                };
                format!("cannot read {name}: {error}{hint}")
            })?;
            let title = Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned();
            (title, text)
        }
    };
    let scenario = Scenario::parse(&title, &text)
        .map_err(|error| format!("{name}: {error}\n{}", error.marked().trim_end()))?;
    if scenario.is_empty() {
        return Err(format!("{name} has no line that does something"));
    }
    Ok(scenario)
}
