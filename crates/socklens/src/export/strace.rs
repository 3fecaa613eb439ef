//! A recording as strace(1) prints it, with one process for each host.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use crate::event::HostName;
use crate::export::session::{Call, Family, Outcome, Session, Step, elements, internet};
use crate::export::words::{data, milliseconds};
use crate::value::{Reader, Value};

/// Bytes of data that strace shows.
const SHOWN: usize = 32;

/// A system call: what is known when it begins, what is known at its end, and its result.
struct System {
    name: &'static str,
    begin: String,
    end: String,
    result: String,
}

impl System {
    fn new(name: &'static str, begin: impl Into<String>, result: impl Into<String>) -> System {
        System { name, begin: begin.into(), end: String::new(), result: result.into() }
    }
}

#[derive(Default)]
struct Text {
    text: String,
    /// Descriptors of the processes by the names of the sockets.
    fds: HashMap<String, (HostName, u32)>,
    used: [BTreeSet<u32>; 2],
    /// The threads that are in a call, by host.
    busy: [BTreeSet<u32>; 2],
    /// The threads of calls that were started.
    threads: HashMap<usize, u32>,
}

/// The control data of a message with these descriptors.
fn control(fds: &[String]) -> String {
    if fds.is_empty() {
        return "msg_controllen=0".to_owned();
    }
    let length = 16 + 4 * fds.len();
    format!(
        "msg_control=[{{cmsg_len={length}, cmsg_level=SOL_SOCKET, cmsg_type=SCM_RIGHTS, cmsg_data=[{}]}}], \
         msg_controllen={}",
        fds.join(", "),
        length.next_multiple_of(8)
    )
}

fn string(bytes: &[u8], length: usize) -> String {
    let mut text = String::from("\"");
    for (index, byte) in bytes.iter().take(SHOWN).enumerate() {
        let next_is_digit = bytes.get(index + 1).is_some_and(u8::is_ascii_digit);
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b' '..=b'~' => text.push(char::from(*byte)),
            byte if next_is_digit => {
                let _ = write!(text, "\\{byte:03o}");
            }
            byte => {
                let _ = write!(text, "\\{byte:o}");
            }
        }
    }
    text + if length > SHOWN { "\"..." } else { "\"" }
}

fn sockaddr_of(ip: &str, port: u16, family: Family) -> (String, usize) {
    let ip = match (ip, family) {
        ("", Family::V6) => "::".to_owned(),
        ("", _) => "0.0.0.0".to_owned(),
        (ip, Family::V6) if !ip.contains(':') => format!("::ffff:{ip}"),
        (ip, _) => ip.to_owned(),
    };
    match family {
        Family::V6 => (
            format!(
                "{{sa_family=AF_INET6, sin6_port=htons({port}), sin6_flowinfo=htonl(0), \
                 inet_pton(AF_INET6, \"{ip}\", &sin6_addr), sin6_scope_id=0}}"
            ),
            28,
        ),
        _ => (format!("{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr(\"{ip}\")}}"), 16),
    }
}

fn sockaddr(value: &Value, family: Family) -> (String, usize) {
    match (internet(value), value) {
        (Some((ip, port)), _) => sockaddr_of(ip, port, family),
        (None, Value::Str(path)) => match path.strip_prefix('\0') {
            Some(name) => (format!("{{sa_family=AF_UNIX, sun_path=@{name:?}}}"), path.len() + 2),
            None => (format!("{{sa_family=AF_UNIX, sun_path={path:?}}}"), path.len() + 3),
        },
        _ => ("NULL".to_owned(), 0),
    }
}

/// The name and the text of an error.
fn errno(name: &str) -> String {
    let number = (1..200).find(|number| sock::errno_name(*number) == Some(name));
    let text = number.map(|number| std::io::Error::from_raw_os_error(number).to_string());
    let text = text.unwrap_or_default();
    match text.split(" (os error").next() {
        Some(text) if !text.is_empty() => format!("-1 {name} ({text})"),
        _ => format!("-1 {name}"),
    }
}

fn flags(value: Option<&Value>) -> String {
    value.map_or("0".to_owned(), |value| value.to_string().replace(" | ", "|"))
}

fn level(value: Option<&Value>) -> String {
    let text = value.map(ToString::to_string).unwrap_or_default();
    match text.strip_prefix("IPPROTO_") {
        Some(protocol) => format!("SOL_{protocol}"),
        None => text,
    }
}

impl Text {
    fn new_fd(&mut self, host: HostName, name: &str) -> u32 {
        let used = &mut self.used[host.index()];
        let fd = (3..).find(|fd| !used.contains(fd)).unwrap_or_default();
        used.insert(fd);
        self.fds.insert(name.to_owned(), (host, fd));
        fd
    }

    fn fd(&self, name: &str) -> u32 {
        self.fds.get(name).map_or(u32::MAX, |(_, fd)| *fd)
    }

    /// The descriptors of the sockets that a call has made. One without a name is closed at once.
    fn made(&mut self, call: &Call) -> Vec<u32> {
        call.targets.iter().map(|(name, _)| self.new_fd(call.host, name)).collect()
    }

    /// The system calls of a call. Those before the last one return at once.
    fn system(&mut self, session: &Session, call: &Call) -> Vec<System> {
        let fd = self.fd(&call.object);
        let error = match &call.outcome {
            Outcome::Errno(name) if name != "timeout" => Some(errno(name)),
            _ => None,
        };
        let value = match &call.outcome {
            Outcome::Value(value) => value.clone(),
            _ => String::new(),
        };
        let result = |of_success: String| error.clone().unwrap_or(of_success);
        let first = call.args.first();
        let plain = |name, args: String| System::new(name, args, result("0".to_owned()));
        let mut before = Vec::new();
        if let Some(seconds) = call.timeout.filter(|seconds| *seconds > 0.0) {
            let event = match call.function.as_str() {
                "accept" | "recv" | "recvfrom" | "recvmsg" | "recv_fds" => "POLLIN",
                "send" | "sendall" | "sendto" | "sendmsg" | "send_fds" | "connect" => "POLLOUT",
                _ => "",
            };
            if !event.is_empty() {
                let ms = (seconds * 1000.0).ceil();
                let ready = match &call.outcome {
                    Outcome::Errno(name) if name == "timeout" => "0 (Timeout)".to_owned(),
                    _ => format!("1 ([{{fd={fd}, revents={event}}}])"),
                };
                let args = format!("[{{fd={fd}, events={event}}}], 1, {ms}");
                let poll = System::new("poll", args, ready);
                if call.function == "connect" {
                    let (to, length) = sockaddr(first.unwrap_or(&Value::None), call.family);
                    let begin = format!("{fd}, {to}, {length}");
                    return vec![System::new("connect", begin, errno("EINPROGRESS")), poll];
                }
                if call.outcome == Outcome::Errno("timeout".to_owned()) {
                    return vec![poll];
                }
                before.push(poll);
            }
        }
        let with_data = |name: &'static str, size: &str, flags: String| {
            let (bytes, length, rest) = data(&value).unwrap_or_default();
            let from =
                match (name, Reader::new(rest.trim_start_matches(", ").trim_end_matches(')')).value()) {
                    ("recv", _) => "NULL, NULL".to_owned(),
                    (_, Ok(Value::Tuple(parts))) => {
                        let (address, length) = sockaddr(&Value::Tuple(parts), call.family);
                        format!("{address}, [{length}]")
                    }
                    _ if error.is_none() && rest.contains('"') => {
                        let path = rest.split('"').nth(1).unwrap_or_default();
                        format!("{{sa_family=AF_UNIX, sun_path={path:?}}}, [{}]", path.len() + 3)
                    }
                    _ => "NULL, [0]".to_owned(),
                };
            let shown = if error.is_some() { "0x7ffd0000".to_owned() } else { string(&bytes, length) };
            System {
                name: "recvfrom",
                begin: format!("{fd}, "),
                end: format!("{shown}, {size}, {flags}, {from}"),
                result: result(length.to_string()),
            }
        };
        let last = match call.function.as_str() {
            "socket" | "socketpair" => {
                let of = |index: usize, default: &str| {
                    call.args.get(index).map_or(default.to_owned(), ToString::to_string)
                };
                let kind = of(1, "SOCK_STREAM").replace(" | ", "|");
                let protocol = match call.args.get(2) {
                    None | Some(Value::Int(0)) if call.family == Family::Unix => "0".to_owned(),
                    None | Some(Value::Int(0)) => "IPPROTO_IP".to_owned(),
                    Some(other) => other.to_string(),
                };
                let made = self.made(call);
                let fd = |index: usize| made.get(index).copied().unwrap_or(3);
                let is_pair = call.function == "socketpair";
                let family = of(0, if is_pair { "AF_UNIX" } else { "AF_INET" });
                let begin = format!("{family}, {kind}|SOCK_CLOEXEC, {protocol}");
                if is_pair {
                    let result = result("0".to_owned());
                    let end = format!(", [{}, {}]", fd(0), fd(1));
                    System { name: "socketpair", begin, end, result }
                } else {
                    System::new("socket", begin, result(fd(0).to_string()))
                }
            }
            "accept" => {
                let made = self.made(call);
                let peer = call.targets.first().and_then(|(_, cookie)| session.peers.get(cookie));
                let parts = peer.and_then(|peer| peer.rsplit_once(':'));
                let (address, length) = match (parts, call.family) {
                    (_, Family::Unix) => ("{sa_family=AF_UNIX}".to_owned(), 2),
                    (Some((ip, port)), family) => {
                        sockaddr_of(ip.trim_matches(['[', ']']), port.parse().unwrap_or_default(), family)
                    }
                    (None, _) => ("NULL".to_owned(), 0),
                };
                let end = match error {
                    Some(_) => "0x7ffd0000, [128], SOCK_CLOEXEC".to_owned(),
                    None if length == 0 => "NULL, NULL, SOCK_CLOEXEC".to_owned(),
                    None => format!("{address}, [128 => {length}], SOCK_CLOEXEC"),
                };
                let number = made.first().copied().unwrap_or(3);
                let result = result(number.to_string());
                System { name: "accept4", begin: format!("{fd}, "), end, result }
            }
            "bind" | "connect" | "connect_ex" => {
                let (to, length) = sockaddr(first.unwrap_or(&Value::None), call.family);
                let name = if call.function == "bind" { "bind" } else { "connect" };
                let result = match call.function.as_str() {
                    "connect_ex" if value != "0" => errno(&value),
                    _ => result("0".to_owned()),
                };
                System::new(name, format!("{fd}, {to}, {length}"), result)
            }
            "listen" => {
                plain("listen", format!("{fd}, {}", flags(Some(first.unwrap_or(&Value::Int(128))))))
            }
            "shutdown" => plain("shutdown", format!("{fd}, {}", flags(first))),
            "close" => {
                if let Some((host, fd)) = self.fds.remove(&call.object) {
                    self.used[host.index()].remove(&fd);
                }
                plain("close", fd.to_string())
            }
            "dup" => {
                let made = self.made(call);
                let number = made.first().copied().unwrap_or(3).to_string();
                System::new("fcntl", format!("{fd}, F_DUPFD_CLOEXEC, 0"), result(number))
            }
            "send" | "sendall" | "sendto" => {
                let bytes = match first {
                    Some(Value::Bytes(bytes)) => &bytes[..],
                    _ => &[],
                };
                let shown = string(bytes, bytes.len());
                let (flags, to) = match call.function.as_str() {
                    "sendto" => ("0".to_owned(), call.args.get(1)),
                    _ => (flags(call.args.get(1)), None),
                };
                let (to, length) = to.map_or(("NULL".to_owned(), 0), |to| sockaddr(to, call.family));
                let begin = format!("{fd}, {shown}, {}, {flags}, {to}, {length}", bytes.len());
                let sent = if call.function == "sendall" { bytes.len().to_string() } else { value.clone() };
                System::new("sendto", begin, result(sent))
            }
            "recv" => with_data("recv", &flags(first), flags(call.args.get(1))),
            "recvfrom" => with_data("recvfrom", &flags(first), flags(call.args.get(1))),
            "recvmsg" | "recv_fds" => {
                let (bytes, length, rest) = data(&value).unwrap_or_default();
                let cut = if rest.contains("MSG_TRUNC") { "MSG_TRUNC" } else { "0" };
                let made = self.made(call);
                let fds: Vec<_> = made.iter().map(ToString::to_string).collect();
                let control = control(if call.function == "recv_fds" { &fds } else { &[] });
                let end = format!(
                    "{{msg_name=NULL, msg_namelen=0, msg_iov=[{{iov_base={}, iov_len={}}}], msg_iovlen=1, \
                     {control}, msg_flags={cut}}}, MSG_CMSG_CLOEXEC",
                    string(&bytes, length),
                    flags(first)
                );
                let result = result(length.to_string());
                System { name: "recvmsg", begin: format!("{fd}, "), end, result }
            }
            "sendmsg" | "send_fds" => {
                let parts: Vec<_> = elements(first)
                    .iter()
                    .filter_map(|part| match part {
                        Value::Bytes(bytes) => Some(format!(
                            "{{iov_base={}, iov_len={}}}",
                            string(bytes, bytes.len()),
                            bytes.len()
                        )),
                        _ => None,
                    })
                    .collect();
                let fds: Vec<_> = match call.args.get(1) {
                    Some(Value::List(list)) => {
                        list.iter().map(|value| self.fd(&value.to_string()).to_string()).collect()
                    }
                    _ => Vec::new(),
                };
                let control = control(&fds);
                let begin = format!(
                    "{fd}, {{msg_name=NULL, msg_namelen=0, msg_iov=[{}], msg_iovlen={}, {control}, \
                     msg_flags=0}}, 0",
                    parts.join(", "),
                    parts.len()
                );
                System::new("sendmsg", begin, result(value.clone()))
            }
            "setsockopt" => {
                let option = flags(call.args.get(1));
                let (shown, length) = match call.args.get(2) {
                    Some(Value::Tuple(pair)) => {
                        let of =
                            |index: usize| pair.get(index).map(ToString::to_string).unwrap_or_default();
                        (format!("{{l_onoff={}, l_linger={}}}", of(0), of(1)), 8)
                    }
                    Some(Value::Bytes(bytes)) => (string(bytes, bytes.len()), bytes.len()),
                    Some(Value::Bool(value)) => (format!("[{}]", u8::from(*value)), 4),
                    other => (format!("[{}]", flags(other)), 4),
                };
                plain("setsockopt", format!("{fd}, {}, {option}, {shown}, {length}", level(first)))
            }
            "getsockopt" => System {
                name: "getsockopt",
                begin: format!("{fd}, {}, {}, ", level(first), flags(call.args.get(1))),
                end: format!("[{value}], [4]"),
                result: result("0".to_owned()),
            },
            "join_group" | "leave_group" => {
                let option = match call.function.as_str() {
                    "join_group" => "IP_ADD_MEMBERSHIP",
                    _ => "IP_DROP_MEMBERSHIP",
                };
                let group = match first {
                    Some(Value::Str(group)) => group.as_str(),
                    _ => "",
                };
                let begin = format!(
                    "{fd}, SOL_IP, {option}, {{imr_multiaddr=inet_addr(\"{group}\"), \
                     imr_interface=inet_addr(\"0.0.0.0\")}}, 8"
                );
                plain("setsockopt", begin)
            }
            "poll" => {
                let events = first.map_or("POLLIN".to_owned(), |first| flags(Some(first)));
                let ms = milliseconds(call.args.get(1));
                let found = match value.as_str() {
                    "0" => "0 (Timeout)".to_owned(),
                    events => format!("1 ([{{fd={fd}, revents={}}}])", events.replace(" | ", "|")),
                };
                System::new("poll", format!("[{{fd={fd}, events={events}}}], 1, {ms}"), result(found))
            }
            "settimeout" | "setblocking" => {
                let blocks = match (call.function.as_str(), first) {
                    ("settimeout", Some(Value::None)) => true,
                    ("settimeout", _) => false,
                    (_, first) => !matches!(first, Some(Value::Bool(false) | Value::Int(0))),
                };
                plain("ioctl", format!("{fd}, FIONBIO, [{}]", u8::from(!blocks)))
            }
            "set_inheritable" => {
                let is_on = !matches!(first, Some(Value::Bool(false) | Value::Int(0)));
                plain("ioctl", format!("{fd}, {}", if is_on { "FIONCLEX" } else { "FIOCLEX" }))
            }
            "getsockname" | "getpeername" => {
                let address = Reader::new(&value).value().unwrap_or(Value::None);
                let (address, length) = sockaddr(&address, call.family);
                System {
                    name: if call.function == "getsockname" { "getsockname" } else { "getpeername" },
                    begin: format!("{fd}, "),
                    end: format!("{address}, [128 => {length}]"),
                    result: result("0".to_owned()),
                }
            }
            "unlink" => {
                let path = match first {
                    Some(Value::Str(path)) => path.clone(),
                    _ => String::new(),
                };
                plain("unlink", format!("{path:?}"))
            }
            // They make no system call.
            "gettimeout" | "getblocking" => return Vec::new(),
            // The arguments of the program are those of execve(2) in the child.
            "run" => {
                let status = value.parse::<u32>().unwrap_or_default() << 8;
                let end = if status == 0 {
                    "[{WIFEXITED(s) && WEXITSTATUS(s) == 0}], 0, NULL".to_owned()
                } else {
                    format!("[{{WIFEXITED(s) && WEXITSTATUS(s) == {}}}], 0, NULL", status >> 8)
                };
                System { name: "wait4", begin: "-1, ".to_owned(), end, result: "101".to_owned() }
            }
            _ => return before,
        };
        before.push(last);
        before
    }

    fn pid(host: HostName, thread: u32) -> u32 {
        1000 * (host.index() as u32 + 1) + thread
    }

    fn put(&mut self, pid: u32, text: &str) {
        let _ = writeln!(self.text, "[pid {pid:5}] {text}");
    }

    fn put_whole(&mut self, pid: u32, system: &System) {
        let text = format!("{}({}{})", system.name, system.begin, system.end);
        self.put(pid, &format!("{text:<39} = {}", system.result));
    }
}

/// The call that runs a program, in the child.
fn execve(call: &Call) -> String {
    let words: Vec<_> = call.args.iter().map(|word| word.to_string()).collect();
    // Where a program without a path most often is: a recording does not have it.
    let path = match &call.args[..] {
        [Value::Str(program), ..] if !program.contains('/') => format!("/usr/bin/{program}"),
        [Value::Str(program), ..] => program.clone(),
        _ => String::new(),
    };
    format!("execve({path:?}, [{}], 0x7ffd0000) = 0", words.join(", "))
}

pub(super) fn text(session: &Session) -> String {
    let mut output = Text::default();
    for step in &session.steps {
        match step {
            Step::Call(index) => {
                let call = &session.calls[*index];
                let host = call.host;
                let busy = &output.busy[host.index()];
                let thread = (1..).find(|thread| !busy.contains(thread)).unwrap_or(1);
                let pid = Text::pid(host, thread);
                if call.function == "run" {
                    output.put(Text::pid(host, 100), &execve(call));
                }
                if call.is_started || call.outcome == Outcome::Open {
                    // A descriptor gets its number when the call returns.
                    let mut unknown = call.clone();
                    unknown.targets.clear();
                    let fds = output.fds.clone();
                    let used = output.used.clone();
                    let mut systems = output.system(session, &unknown);
                    output.fds = fds;
                    output.used = used;
                    output.busy[host.index()].insert(thread);
                    output.threads.insert(*index, thread);
                    let last = systems.pop();
                    for system in &systems {
                        output.put_whole(pid, system);
                    }
                    if let Some(system) = last {
                        output.put(pid, &format!("{}({} <unfinished ...>", system.name, system.begin));
                    }
                } else {
                    for system in &output.system(session, call) {
                        output.put_whole(pid, system);
                    }
                }
            }
            Step::End(index) => {
                let call = &session.calls[*index];
                let thread = output.threads.remove(index).unwrap_or(1);
                output.busy[call.host.index()].remove(&thread);
                if let Some(system) = output.system(session, call).pop() {
                    let text = format!("<... {} resumed>{})", system.name, system.end);
                    output.put(Text::pid(call.host, thread), &format!("{text:<39} = {}", system.result));
                }
            }
            Step::Limit(more) => {
                let used = &output.used[HostName::B.index()];
                let free = (3..).filter(|fd| !used.contains(fd));
                let limit = free.take(*more as usize + 1).last().unwrap_or(3);
                let text = format!(
                    "prlimit64(0, RLIMIT_NOFILE, {{rlim_cur={limit}, rlim_max=RLIM64_INFINITY}}, NULL) = 0"
                );
                output.put(Text::pid(HostName::B, 1), &text);
            }
            Step::Comment(_) | Step::Wait(_) => {}
        }
    }
    output.text
}
