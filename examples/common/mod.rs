//! What the programs share: their arguments, a typed line, an error's name.
//!
//! Address and port are optional positional arguments everywhere. A wrong one
//! is answered with a single line that names it, and with exit code 2.

// Each program is a crate of its own and uses its part of this.
#![allow(dead_code)]

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

/// HOST and PORT from the command line, or these.
pub(crate) fn address(host: &str, port: u16) -> (String, u16) {
    let given = given(&["HOST", "PORT"]);
    (word(&given, 0, host), number(&given, 1, port))
}

/// HOST, PORT and a third argument called `name`, or these.
pub(crate) fn address_and(host: &str, port: u16, name: &str, value: &str) -> (String, u16, String) {
    let given = given(&["HOST", "PORT", name]);
    (word(&given, 0, host), number(&given, 1, port), word(&given, 2, value))
}

/// PATH from the command line, or this.
pub(crate) fn path(path: &str) -> PathBuf {
    given(&["PATH"]).pop().unwrap_or_else(|| path.into()).into()
}

/// A line typed by the user, or `None` at the end of the input.
pub(crate) fn ask(prompt: &str) -> io::Result<Option<String>> {
    print!("{prompt}");
    io::stdout().flush()?;
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        // The terminal still stands behind the prompt.
        println!();
        return Ok(None);
    }
    Ok(Some(line.trim_end_matches('\n').to_owned()))
}

/// Received bytes as text, without the end of the line.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// An error by the name of its errno, as in `ECONNREFUSED, errno 111`.
pub(crate) fn named(err: &io::Error) -> String {
    // getaddrinfo has names and numbers of its own.
    if let Some(gai) = sock::GaiError::of(err) {
        return format!("{}, getaddrinfo error {}", gai.name(), gai.code());
    }
    match sock::errno(err).map(|number| (sock::errno_name(number), number)) {
        Some((Some(name), number)) => format!("{name}, errno {number}"),
        // A time-out, for one, comes from no system call and has no errno.
        _ => err.to_string(),
    }
}

/// Says what is wrong in one line and ends the program.
pub(crate) fn refuse(complaint: impl fmt::Display) -> ! {
    eprintln!("{}: {complaint}", program());
    process::exit(2)
}

fn program() -> String {
    let name = env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_stem().unwrap_or(&name);
    name.to_string_lossy().into_owned()
}

/// The arguments; more of them than `names` are refused.
fn given(names: &[&str]) -> Vec<OsString> {
    let usage = format!("usage: {} [{}{}", program(), names.join(" ["), "]".repeat(names.len()));
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    if let Some(word) = words.first().filter(|word| word.as_encoded_bytes().starts_with(b"-")) {
        refuse(format_args!("unexpected option '{}'; {usage}", word.to_string_lossy()));
    }
    if let Some(word) = words.get(names.len()) {
        refuse(format_args!("unexpected argument '{}'; {usage}", word.to_string_lossy()));
    }
    words
}

fn word(given: &[OsString], index: usize, default: &str) -> String {
    given.get(index).map_or(default.into(), |word| word.to_string_lossy()).into_owned()
}

fn number(given: &[OsString], index: usize, default: u16) -> u16 {
    let Some(word) = given.get(index).map(|word| word.to_string_lossy()) else {
        return default;
    };
    match word.parse() {
        Ok(port) => port,
        Err(_) => refuse(format_args!("PORT must be a number from 0 to 65535, not '{word}'")),
    }
}
