//! A recording as a program in Rust, with the crate `sock`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::event::HostName;
use crate::export::session::{Call, Family, Outcome, Session, Step, elements, host_of, internet};
use crate::export::words::{name, repeated, wrapped};
use crate::value::{Value, constant};

/// Words that the program uses itself.
const TAKEN: &str = "as async await break const continue crate dyn else enum extern false fn for gen if impl in \
    let loop match mod move mut pub ref return self Self static struct super trait true try type \
    use where while yield abstract become box do final macro override priv typeof unsized \
    virtual Arc LIMIT None Ok Err Some io sock std show shown start end data poll run folder \
    main Started received descriptors unsafe";

/// The functions that a program may need.
const HELPERS: &[(&str, &str)] = &[
    (
        "show",
        r#"
/// Prints the result of a call.
fn show(call: &str, result: String) {
    println!("{call}: {result}");
}
"#,
    ),
    (
        "shown",
        r#"
/// Prints the result of a call, and goes on after an error.
fn shown(call: &str, result: io::Result<String>) {
    match result {
        Ok(result) => println!("{call}: {result}"),
        Err(error) => println!("{call}: {error}"),
    }
}
"#,
    ),
    (
        "data",
        r#"
/// The beginning of what was received.
fn data(bytes: Vec<u8>) -> String {
    let shown = &bytes[..bytes.len().min(48)];
    format!("b\"{}\"{}", shown.escape_ascii(), if bytes.len() > 48 { "..." } else { "" })
}
"#,
    ),
    (
        "start",
        r#"
/// A call in a thread of its own, because it can block.
struct Started<T> {
    result: std::sync::mpsc::Receiver<io::Result<T>>,
    early: Option<io::Result<T>>,
}

/// Starts a call, and waits a moment so that it blocks before the next call is made.
fn start<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> Started<T> {
    let (sender, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(call()));
    let early = result.recv_timeout(std::time::Duration::from_millis(200)).ok();
    Started { result, early }
}
"#,
    ),
    (
        "end",
        r#"
/// Waits until a call that was started returns.
fn end<T>(started: Started<T>) -> io::Result<T> {
    let blocks = || io::Error::new(io::ErrorKind::TimedOut, "still blocks");
    match started.early {
        Some(result) => result,
        None => started.result.recv_timeout(LIMIT).unwrap_or_else(|_| Err(blocks())),
    }
}
"#,
    ),
    (
        "poll",
        r#"
/// Waits until a socket is ready, and returns its events; 0 when the time is over.
fn poll(socket: &sock::Socket, events: sock::Events, seconds: Option<f64>) -> io::Result<String> {
    let mut set = [sock::Poll::new(socket, events)];
    sock::poll(&mut set, seconds.map(std::time::Duration::from_secs_f64))?;
    Ok(format!("{:#x}", set[0].revents()))
}
"#,
    ),
    (
        "next_socket",
        r#"
/// A socket of a descriptor that was received.
fn next_socket(descriptors: &mut impl Iterator<Item = std::os::fd::OwnedFd>) -> io::Result<sock::Socket> {
    let descriptor = descriptors.next().ok_or_else(|| io::Error::other("no descriptor was received"))?;
    sock::Socket::from_fd(descriptor, None, None, None).map_err(|error| error.error)
}
"#,
    ),
    (
        "run",
        r#"
/// Runs a program, which inherits what is inheritable, and returns its status.
fn run(program: &str, args: &[&str]) -> io::Result<String> {
    let folder = std::env::current_dir()?;
    let mut command = std::process::Command::new(program);
    let status = command.args(args).env("SOCKLENS_FOLDER", folder).status()?;
    Ok(status.to_string())
}
"#,
    ),
    (
        "limit_descriptors",
        r#"
/// Leaves room for so many descriptors.
fn limit_descriptors(more: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let free: io::Result<Vec<_>> = (0..=more).map(|_| std::fs::File::open("/dev/null")).collect();
    let limit = free?.last().map_or(0, AsRawFd::as_raw_fd);
    let pid = format!("--pid={}", std::process::id());
    let limit = format!("--nofile={limit}:");
    match std::process::Command::new("prlimit").args([pid, limit]).status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("prlimit has failed")),
    }
}
"#,
    ),
];

fn bytes(value: Option<&Value>) -> String {
    let Some(Value::Bytes(bytes)) = value else { return "b\"\"".to_owned() };
    match repeated(bytes) {
        Some((part, count)) => format!("&b\"{}\".repeat({count})", part.escape_ascii()),
        None => format!("b\"{}\"", bytes.escape_ascii()),
    }
}

fn literal(value: Option<&Value>, default: &str) -> String {
    match value {
        None | Some(Value::None) => default.to_owned(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Str(text)) => format!("{text:?}"),
        Some(Value::Names(names)) => {
            let words = names.iter().map(|word| match constant(word) {
                Some(_) => format!("sock::{word}"),
                None => name(word, TAKEN),
            });
            words.collect::<Vec<_>>().join(" | ")
        }
        Some(other) => other.to_string(),
    }
}

/// A number for setsockopt(2).
fn number(value: Option<&Value>) -> String {
    match value {
        Some(Value::Bool(value)) => u8::from(*value).to_string(),
        other => literal(other, "0"),
    }
}

/// `True`, or a number that is not 0.
fn flag(value: Option<&Value>, default: bool) -> bool {
    match value {
        Some(Value::Bool(value)) => *value,
        Some(Value::Int(number)) => *number != 0,
        _ => default,
    }
}

fn seconds(value: Option<&Value>) -> String {
    match value {
        Some(Value::Float(seconds)) => format!("Some({seconds:?})"),
        Some(Value::Int(seconds)) => format!("Some({seconds}.0)"),
        _ => "None".to_owned(),
    }
}

/// The variable with the address of a host.
fn host_name(host: HostName) -> &'static str {
    match host {
        HostName::A => "A",
        HostName::B => "B.as_str()",
    }
}

fn address(call: &Call, value: Option<&Value>) -> String {
    let Some((ip, port)) = value.and_then(internet) else { return literal(value, "\"\"") };
    let port = if (1..1024).contains(&port) { format!("PORT_{port}") } else { format!("{port}_u16") };
    let is_v4 = ip.parse::<std::net::Ipv4Addr>().is_ok();
    let ip = match (host_of(ip), call.family) {
        (Some(host), Family::V6) => format!("format!(\"::ffff:{{}}\", {})", host_name(host)),
        (Some(host), _) => host_name(host).to_owned(),
        (None, Family::V6) if is_v4 => format!("\"::ffff:{ip}\""),
        (None, _) => format!("{ip:?}"),
    };
    format!("({ip}, {port})")
}

/// What is done with the result of a call.
enum Made {
    /// It has none.
    Nothing,
    /// It was made a text.
    Text,
    /// A socket, or sockets.
    Socket,
    Connection,
    Pair,
    Received,
}

/// The expression of a call, of type `io::Result`.
fn expression(call: &Call) -> (String, Made) {
    let socket = name(&call.object, TAKEN);
    let (first, second) = (call.args.first(), call.args.get(1));
    let text = |expression: String| (expression + ".map(|value| value.to_string())", Made::Text);
    let nothing = |expression: String| (expression, Made::Nothing);
    let sized = |function: &str| match second {
        Some(flags) => {
            format!(
                "{socket}.{function}_with_flags({}, {})",
                literal(first, "0"),
                literal(Some(flags), "0")
            )
        }
        None => format!("{socket}.{function}({})", literal(first, "0")),
    };
    match call.function.as_str() {
        "socket" => {
            let (family, kind) = (literal(first, "sock::AF_INET"), literal(second, "sock::SOCK_STREAM"));
            let proto = literal(call.args.get(2), "0");
            (format!("sock::Socket::new({family}, {kind}, {proto})"), Made::Socket)
        }
        "socketpair" => {
            let (family, kind) = (literal(first, "sock::AF_UNIX"), literal(second, "sock::SOCK_STREAM"));
            let proto = literal(call.args.get(2), "0");
            (format!("sock::socketpair_with({family}, {kind}, {proto})"), Made::Pair)
        }
        "accept" => (format!("{socket}.accept()"), Made::Connection),
        "dup" => (format!("{socket}.dup()"), Made::Socket),
        "bind" | "connect" => nothing(format!("{socket}.{}({})", call.function, address(call, first))),
        "connect_ex" => text(format!("{socket}.connect_ex({})", address(call, first))),
        "listen" => nothing(format!("{socket}.listen({})", literal(first, "None"))),
        "send" => match second {
            Some(flags) => {
                text(format!("{socket}.send_with_flags({}, {})", bytes(first), literal(Some(flags), "0")))
            }
            None => text(format!("{socket}.send({})", bytes(first))),
        },
        "sendall" => nothing(format!("{socket}.sendall({})", bytes(first))),
        "sendto" => text(format!("{socket}.sendto({}, {})", bytes(first), address(call, second))),
        "sendmsg" | "send_fds" => {
            let parts: Vec<_> = elements(first)
                .iter()
                .map(|part| format!("io::IoSlice::new({})", bytes(Some(part))))
                .collect();
            let fds: Vec<_> = match second {
                Some(Value::List(list)) if call.function == "send_fds" => list
                    .iter()
                    .map(|value| format!("sock::AsFd::as_fd(&{})", name(&value.to_string(), TAKEN)))
                    .collect(),
                _ => Vec::new(),
            };
            text(format!("{socket}.{}(&[{}], &[{}])", call.function, parts.join(", "), fds.join(", ")))
        }
        "recv" => (format!("{}.map(data)", sized("recv")), Made::Text),
        "recvfrom" => (
            format!("{}.map(|(bytes, from)| format!(\"{{}} {{from}}\", data(bytes)))", sized("recvfrom")),
            Made::Text,
        ),
        "recvmsg" => (
            format!(
                "{socket}.recvmsg({}, 0).map(|message| {{\n        let cut = message.flags.contains(sock::MSG_TRUNC);\n        \
                 format!(\"{{}} {{}}\", data(message.data), if cut {{ \"MSG_TRUNC\" }} else {{ \"whole\" }})\n    }})",
                literal(first, "0")
            ),
            Made::Text,
        ),
        "recv_fds" => (
            format!("{socket}.recv_fds({}, {})", literal(first, "0"), literal(second, "0")),
            Made::Received,
        ),
        "shutdown" => {
            let how = match first.map(ToString::to_string).unwrap_or_default().as_str() {
                "SHUT_RD" => "Read",
                "SHUT_WR" => "Write",
                _ => "Both",
            };
            nothing(format!("{socket}.shutdown(sock::Shutdown::{how})"))
        }
        "setsockopt" => {
            let (level, option) = (literal(first, "0"), literal(second, "0"));
            nothing(match call.args.get(2) {
                Some(Value::Tuple(pair)) => format!(
                    "{socket}.set_linger(sock::Linger {{ l_onoff: {}, l_linger: {} }})",
                    flag(pair.first(), true),
                    number(pair.get(1))
                ),
                Some(value @ Value::Bytes(_)) => {
                    format!("{socket}.setsockopt({level}, {option}, &{}[..])", bytes(Some(value)))
                }
                value => format!("{socket}.setsockopt({level}, {option}, {})", number(value)),
            })
        }
        "getsockopt" => {
            text(format!("{socket}.getsockopt({}, {})", literal(first, "0"), literal(second, "0")))
        }
        "poll" => (
            format!("poll(&{socket}, {}, {})", literal(first, "sock::POLLIN"), seconds(second)),
            Made::Text,
        ),
        "settimeout" => nothing(match first {
            Some(Value::Float(seconds)) => format!("{socket}.settimeout({seconds:?})"),
            Some(Value::Int(seconds)) => format!("{socket}.settimeout({seconds}.0)"),
            _ => format!("{socket}.settimeout(None::<std::time::Duration>)"),
        }),
        "setblocking" | "set_inheritable" => {
            nothing(format!("{socket}.{}({})", call.function, flag(first, true)))
        }
        "getblocking" | "gettimeout" => {
            (format!("io::Result::Ok(format!(\"{{:?}}\", {socket}.{}()))", call.function), Made::Text)
        }
        "getsockname" | "getpeername" => text(format!("{socket}.{}()", call.function)),
        "join_group" | "leave_group" => {
            let group = literal(first, "\"\"");
            let group = format!("{group}.parse::<std::net::IpAddr>().map_err(io::Error::other)");
            nothing(format!("{group}.and_then(|group| {socket}.{}(group, 0))", call.function))
        }
        "unlink" => nothing(format!("std::fs::remove_file({})", literal(first, "\"\""))),
        "run" => {
            let words: Vec<_> = call.args.iter().map(|word| literal(Some(word), "\"\"")).collect();
            (format!("run({}, &[{}])", words[0], words[1..].join(", ")), Made::Text)
        }
        _ => nothing(format!("{socket}.close()")),
    }
}

/// A line with a remark behind it.
fn put(text: &mut String, code: &str, remark: &str) {
    if remark.is_empty() {
        let _ = writeln!(text, "    {code}");
    } else {
        let _ = writeln!(text, "    {code:<58} // {remark}");
    }
}

struct Writer<'a> {
    text: String,
    /// Sockets on which a thread calls.
    shared: &'a BTreeSet<String>,
}

impl Writer<'_> {
    fn bind(
        &mut self,
        call: &Call,
        index: usize,
        pattern: impl Fn(&str) -> String,
        value: &str,
        remark: &str,
    ) {
        let target = call.targets.get(index).map(|(target, _)| target);
        let to = target.map_or("_".to_owned(), |target| name(target, TAKEN));
        put(&mut self.text, &format!("let {} = {value};", pattern(&to)), remark);
        self.share(call, index);
    }

    fn share(&mut self, call: &Call, index: usize) {
        let target = call.targets.get(index).map(|(target, _)| target);
        if let Some(target) = target.filter(|target| self.shared.contains(*target)) {
            let to = name(target, TAKEN);
            put(&mut self.text, &format!("let {to} = Arc::new({to});"), "");
        }
    }

    /// The statement around the expression of a call.
    fn call(&mut self, call: &Call, expression: &str, made: &Made) {
        let remark = call.remark();
        let goes_on = matches!(call.outcome, Outcome::Errno(_)) || call.can_differ;
        let title = call.title();
        match made {
            Made::Text if goes_on => {
                put(&mut self.text, &format!("shown({title:?}, {expression});"), &remark);
            }
            Made::Text => put(&mut self.text, &format!("show({title:?}, {expression}?);"), &remark),
            Made::Nothing if goes_on => {
                let text = format!("shown({title:?}, {expression}.map(|()| \"done\".to_owned()));");
                put(&mut self.text, &text, &remark);
            }
            Made::Nothing => put(&mut self.text, &format!("{expression}?;"), &remark),
            _ if call.targets.is_empty() && goes_on => {
                let text = format!("shown({title:?}, {expression}.map(|_| \"done\".to_owned()));");
                put(&mut self.text, &text, &remark);
            }
            _ if call.targets.is_empty() => put(&mut self.text, &format!("{expression}?;"), &remark),
            Made::Socket => self.bind(call, 0, str::to_owned, &format!("{expression}?"), &remark),
            Made::Connection => {
                self.bind(call, 0, |to| format!("({to}, _)"), &format!("{expression}?"), &remark);
            }
            Made::Pair => {
                let to = |index: usize| {
                    call.targets.get(index).map_or("_".to_owned(), |(to, _)| name(to, TAKEN))
                };
                put(&mut self.text, &format!("let ({}, {}) = {expression}?;", to(0), to(1)), &remark);
                self.share(call, 0);
                self.share(call, 1);
            }
            Made::Received => {
                put(&mut self.text, &format!("let received = {expression}?;"), &remark);
                put(&mut self.text, &format!("show({title:?}, data(received.data));"), "");
                put(&mut self.text, "let mut descriptors = received.descriptors.into_iter();", "");
                for index in 0..call.targets.len() {
                    self.bind(call, index, str::to_owned, "next_socket(&mut descriptors)?", "");
                }
            }
        }
    }

    /// A closure that makes a call in a thread.
    fn closure(&self, call: &Call, expression: &str) -> String {
        let socket = name(&call.object, TAKEN);
        match self.shared.contains(&call.object) {
            true => format!(
                "{{\n        let {socket} = {socket}.clone();\n        move || {expression}\n    }}"
            ),
            false => format!("move || {expression}"),
        }
    }
}

fn has_thread(call: &Call) -> bool {
    call.is_started || call.outcome == Outcome::Open || call.can_differ && call.waits()
}

fn steps(session: &Session) -> String {
    let with_thread = session.calls.iter().filter(|call| has_thread(call) && call.function != "run");
    let shared: BTreeSet<String> = with_thread.map(|call| call.object.clone()).collect();
    let mut writer = Writer { text: String::new(), shared: &shared };
    for step in &session.steps {
        match step {
            Step::Comment(remark) => {
                for line in wrapped(remark, 90) {
                    put(&mut writer.text, &format!("// {line}"), "");
                }
            }
            Step::Wait(seconds) => {
                let code = format!("std::thread::sleep(std::time::Duration::from_secs_f64({seconds:?}));");
                put(&mut writer.text, &code, "");
            }
            Step::Limit(more) => put(&mut writer.text, &format!("limit_descriptors({more})?;"), ""),
            Step::Call(index) => {
                let call = &session.calls[*index];
                let (expression, made) = expression(call);
                if call.is_started || call.outcome == Outcome::Open {
                    let closure = writer.closure(call, &expression);
                    let variable = name(&call.variable(), TAKEN);
                    let code = format!("let {variable} = start({closure});");
                    put(&mut writer.text, &code, "blocks");
                } else if has_thread(call) {
                    let closure = writer.closure(call, &expression);
                    writer.call(call, &format!("end(start({closure}))"), &made);
                } else if call.function == "close" && shared.contains(&call.object) {
                    put(&mut writer.text, &format!("drop({});", name(&call.object, TAKEN)), "closes it");
                } else {
                    writer.call(call, &expression, &made);
                }
            }
            Step::End(index) => {
                let call = &session.calls[*index];
                let (_, made) = expression(call);
                writer.call(call, &format!("end({})", name(&call.variable(), TAKEN)), &made);
            }
        }
    }
    writer.text
}

/// Whether a text calls a function, in a line that is not a comment.
fn calls(text: &str, function: &str) -> bool {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap_or_default()).any(|line| {
        line.match_indices(function).any(|(place, _)| {
            let before = line[..place].chars().next_back();
            let is_whole =
                !before.is_some_and(|c| c.is_alphanumeric() || ['_', '.', ':', '"'].contains(&c));
            let after = &line[place + function.len()..];
            is_whole && (after.starts_with('(') || after.starts_with(')') && function == "data")
        })
    })
}

pub(super) fn program(session: &Session) -> String {
    let body = steps(session);
    let mut all = body.clone();
    let mut chosen = BTreeSet::new();
    for (index, (name, helper)) in HELPERS.iter().enumerate().rev() {
        if calls(&all, name) {
            all += helper;
            chosen.insert(index);
        }
    }
    let build = "It needs the crate `sock`, which is Python's `socket` in Rust.";
    let mut text = String::new();
    for (index, part) in [session.title.as_str(), &session.about(), build].into_iter().enumerate() {
        if index > 0 {
            text += "//!\n";
        }
        for line in wrapped(part, 92) {
            let _ = writeln!(text, "//! {line}");
        }
    }
    text += "\n// The names are those of the lesson, and a lesson need not use each socket and wait for each call.\n\
             #![allow(dead_code, non_snake_case, unused_variables)]\n\nuse std::io;\n";
    if body.contains("Arc::new(") {
        text += "use std::sync::Arc;\n";
    }
    let uses =
        |word: &str| body.lines().any(|line| line.contains(word) && !line.trim_start().starts_with("//"));
    if uses("B.as_str()") {
        text += "use std::sync::LazyLock;\n";
    }
    text.push('\n');
    if uses("(A, ") || uses("\", A)") {
        text += "/// The address of host A.\nconst A: &str = \"127.0.0.1\";\n";
    }
    if uses("B.as_str()") {
        text += "/// The address of host B. It differs in each run, because TIME-WAIT keeps a port.\n\
                 static B: LazyLock<String> = LazyLock::new(|| {\n    \
                 let [_, _, high, low] = std::process::id().to_be_bytes();\n    \
                 format!(\"127.1.{high}.{low}\")\n});\n";
    }
    let ports = session.low_ports();
    if !ports.is_empty() {
        text += "// A port below 1024 needs privileges.\n";
    }
    for port in ports {
        let _ = writeln!(text, "const PORT_{port}: u16 = {};", 8000 + port);
    }
    if calls(&all, "end") {
        text += "/// How long a call that blocks is waited for.\n\
                 const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);\n";
    }
    for index in chosen {
        text += HELPERS[index].1;
    }
    text += "\nfn main() -> io::Result<()> {\n";
    if session.uses_folder() {
        text += "    let folder = std::env::temp_dir().join(format!(\"socklens-{}\", std::process::id()));\n    \
                 std::fs::create_dir(&folder)?;\n    std::env::set_current_dir(&folder)?;\n";
    }
    text += &body;
    if session.uses_folder() {
        text += "    std::fs::remove_dir_all(&folder)?;\n";
    }
    text += "    Ok(())\n}\n";
    text
}
