//! Shared by the example programs: arguments, typed input, names of errors.
//!
//! Address and port are optional positional arguments of every program. With `--help` the program
//! prints its usage and exits with code 0. For an invalid argument it prints one line and exits with
//! code 2. For an error it prints one line with the address, and exits with code 1. It does the same
//! if its own output cannot be written, because the reader has gone or the disk is full.

// Each program is a separate crate, and uses only a part of this module.
#![allow(dead_code)]

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::panic;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;

/// What `main` returns.
pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

/// An error that is printed as a sentence.
///
/// Rust prints the `Debug` form of an error that `main` returns, which for an [`io::Error`] is the
/// form for programmers: `Os { code: 111, kind: ConnectionRefused, … }`.
pub(crate) struct Error(io::Error);

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error(error)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.0.to_string();
        // The errors of a system call do not contain the address, those of a server do.
        match SUBJECT.get().filter(|subject| !message.contains(*subject)) {
            Some(subject) => write!(f, "{subject}: {message}"),
            None => f.write_str(&message),
        }
    }
}

/// The address or the path that the program uses, for its errors.
static SUBJECT: OnceLock<String> = OnceLock::new();

/// Returns HOST and PORT from the command line, or the defaults.
pub(crate) fn address(host: &str, port: u16) -> (String, u16) {
    let given = given(&["HOST", "PORT"], &[host, &port.to_string()]);
    with_subject((word(&given, 0, host), number(&given, 1, port)))
}

/// Returns HOST, PORT and a third argument called `name`, or the defaults.
pub(crate) fn address_and(host: &str, port: u16, name: &str, value: &str) -> (String, u16, String) {
    let (host, port, [third]) = address_and_more(host, port, [(name, value)]);
    (host, port, third)
}

/// Returns HOST, PORT and more arguments, each with a name and a default.
pub(crate) fn address_and_more<const N: usize>(
    host: &str,
    port: u16,
    more: [(&str, &str); N],
) -> (String, u16, [String; N]) {
    let digits = port.to_string();
    let all = [&[("HOST", host), ("PORT", &digits)], &more[..]].concat();
    let (names, defaults): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let given = given(&names, &defaults);
    let (host, port) = with_subject((word(&given, 0, host), number(&given, 1, port)));
    (host, port, std::array::from_fn(|index| word(&given, index + 2, more[index].1)))
}

/// Returns PATH from the command line, or the default.
pub(crate) fn path(path: &str) -> PathBuf {
    let path: PathBuf = given(&["PATH"], &[path]).pop().unwrap_or_else(|| path.into()).into();
    SUBJECT.get_or_init(|| path.display().to_string());
    path
}

fn with_subject((host, port): (String, u16)) -> (String, u16) {
    let subject = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    SUBJECT.get_or_init(|| subject);
    (host, port)
}

/// Prompts for a line, and returns it, or `None` at end of input.
pub(crate) fn ask(prompt: &str) -> io::Result<Option<String>> {
    print!("{prompt}");
    io::stdout().flush().unwrap_or_else(|error| end_without(&format!("stdout: {error}")));
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        // The cursor is still after the prompt.
        println!();
        return Ok(None);
    }
    Ok(Some(line.trim_end_matches('\n').to_owned()))
}

/// Returns received bytes as text, without the end of line.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// Returns the name and the number of an error, such as `ECONNREFUSED, errno 111`.
pub(crate) fn named(err: &io::Error) -> String {
    // Errors of getaddrinfo have their own names and numbers.
    if let Some(gai) = sock::GaiError::of(err) {
        return format!("{}, getaddrinfo error {}", gai.name(), gai.code());
    }
    match sock::errno(err).map(|number| (sock::errno_name(number), number)) {
        Some((Some(name), number)) => format!("{name}, errno {number}"),
        // A timeout, for example, is not an error of a system call and has no errno.
        _ => err.to_string(),
    }
}

/// Prints one line and exits with code 2.
pub(crate) fn refuse(message: impl fmt::Display) -> ! {
    // `eprintln!` would panic if the reader of standard error has gone.
    let _ = writeln!(io::stderr(), "{}: {message}", program());
    process::exit(2)
}

/// Prints a line of a server that goes on to serve if nothing can be printed.
pub(crate) fn note(line: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// From now on a program whose output cannot be written prints one line and exits with code 1.
///
/// `println!` panics in this case, since Rust programs ignore SIGPIPE. The message of this panic is
/// part of the standard library, so it is all there is to recognise it by.
fn end_without_output() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let message = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        let Some(error) = message.strip_prefix("failed printing to ") else {
            return before(panic);
        };
        end_without(error)
    }));
}

fn end_without(output: &str) -> ! {
    let _ = writeln!(io::stderr(), "{}: cannot print to {output}", program());
    process::exit(1)
}

fn program() -> String {
    let name = env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_stem().unwrap_or(&name);
    name.to_string_lossy().into_owned()
}

/// Returns the arguments. More arguments than `names` are an error.
fn given(names: &[&str], defaults: &[&str]) -> Vec<OsString> {
    end_without_output();
    let usage = format!("usage: {} [{}{}", program(), names.join(" ["), "]".repeat(names.len()));
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{usage}\ndefaults: {}", defaults.join(" "));
        process::exit(0);
    }
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
