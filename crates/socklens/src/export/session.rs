//! What was called in a recording, in the order of a program.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value as Json;

use crate::call::{OF_HOST, OF_SOCKET};
use crate::command;
use crate::event::HostName;
use crate::lab::SCENARIO;
use crate::scenario::parse::{is_invisible, is_name};
use crate::value::{Reader, Value};

/// The address family of a socket, as far as programs differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
    Unix,
}

/// What a call returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As Python writes it.
    Value(String),
    /// The name of an error, or `timeout`.
    Errno(String),
    /// It has not returned.
    Open,
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: u64,
    pub(super) host: HostName,
    /// Name of the socket, or of the host.
    pub(super) object: String,
    pub(super) function: String,
    pub(super) args: Vec<Value>,
    /// The arguments as the scenario writes them; of `run` the command.
    pub(super) text: String,
    pub(super) line: u64,
    pub(super) outcome: Outcome,
    /// The sockets that it has made, and their cookies.
    pub(super) targets: Vec<(String, String)>,
    /// Whether something else was called before it returned.
    pub(super) is_started: bool,
    /// Whether its result can differ because a program has no wire that holds packets.
    pub(super) can_differ: bool,
    pub(super) family: Family,
    pub(super) is_stream: bool,
    /// The timeout of its socket, in seconds. 0 for a socket that does not block.
    pub(super) timeout: Option<f64>,
}

impl Call {
    /// The call in the output of a program.
    pub(super) fn title(&self) -> String {
        format!("{}.{}", self.object, self.function)
    }

    /// The name of the variable for a call that goes on.
    pub(super) fn variable(&self) -> String {
        format!("{}_{}_{}", self.object, self.function, self.line)
    }

    /// Whether it can wait for the other side.
    pub(super) fn waits(&self) -> bool {
        let waits = ["accept", "connect", "recv", "recvfrom", "recvmsg", "recv_fds", "sendall", "poll"];
        waits.contains(&self.function.as_str())
    }

    /// Whether its result is a value that is worth a line of the output.
    pub(super) fn is_shown(&self) -> bool {
        let shown = [
            "connect_ex",
            "getblocking",
            "getpeername",
            "getsockname",
            "getsockopt",
            "gettimeout",
            "poll",
            "recv",
            "recv_fds",
            "recvfrom",
            "recvmsg",
            "run",
            "send",
            "send_fds",
            "sendmsg",
            "sendto",
        ];
        shown.contains(&self.function.as_str())
    }

    /// The remark behind a call: what it returned in the lesson.
    pub(super) fn remark(&self) -> String {
        match &self.outcome {
            Outcome::Open => "blocks".to_owned(),
            Outcome::Errno(name) => name.clone(),
            Outcome::Value(value) if self.is_shown() => {
                // The number of a descriptor of the recording says nothing.
                value.split(", [fd ").next().unwrap_or_default().trim_start_matches('(').to_owned()
            }
            Outcome::Value(_) => String::new(),
        }
    }
}

/// A step of a program.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Comment(String),
    /// The call with this index is made.
    Call(usize),
    /// The call with this index, which was started, has returned.
    End(usize),
    /// Seconds.
    Wait(f64),
    /// Room for this many descriptors.
    Limit(u64),
}

#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) calls: Vec<Call>,
    pub(super) steps: Vec<Step>,
    /// Whether the wire did not pass all packets.
    pub(super) has_decisions: bool,
    /// Cookies of sockets with the addresses of their peers.
    pub(super) peers: HashMap<String, String>,
}

/// A line of the scenario.
struct Line {
    kind: String,
    text: String,
    why: Option<String>,
}

/// What is known about a named socket.
#[derive(Clone, Copy)]
struct Known {
    family: Family,
    is_stream: bool,
    timeout: Option<f64>,
}

#[derive(Default)]
struct Builder {
    session: Session,
    lines: Vec<Line>,
    /// How many lines were taken over.
    taken: usize,
    known: HashMap<String, Known>,
    /// Sockets that were named since the last return.
    named: Vec<(String, String)>,
    open: Vec<usize>,
    packets: HashMap<u64, String>,
    is_paused: bool,
}

fn text<'a>(event: &'a Json, key: &str) -> &'a str {
    event[key].as_str().unwrap_or_default()
}

fn number(event: &Json, key: &str) -> u64 {
    event[key].as_u64().unwrap_or_default()
}

/// Whether one of the texts of an event has a character that a terminal or a compiler obeys.
fn has_invisible(event: &Json) -> bool {
    match event {
        Json::String(text) => text.chars().any(is_invisible),
        Json::Array(parts) => parts.iter().any(has_invisible),
        Json::Object(parts) => parts.values().any(has_invisible),
        _ => false,
    }
}

/// A recording can come from anywhere, and the names of its sockets become code.
fn check_name(name: &str) -> Result<(), String> {
    if is_name(name) { Ok(()) } else { Err(format!("{name:?} is not the name of a socket")) }
}

/// The elements of a list. Another value is its only element.
pub(super) fn elements(value: Option<&Value>) -> &[Value] {
    match value {
        Some(Value::List(values)) => values,
        Some(other) => std::slice::from_ref(other),
        None => &[],
    }
}

impl Session {
    /// Reads JSON lines.
    pub(super) fn read(recording: &str) -> Result<Session, String> {
        let mut builder = Builder::default();
        for (index, line) in recording.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let event: Json = serde_json::from_str(line)
                .map_err(|error| format!("line {} is not an event of a recording: {error}", index + 1))?;
            builder.add(&event)?;
        }
        if builder.session.calls.is_empty() {
            return Err("the recording has no call yet".to_owned());
        }
        let mut session = builder.session;
        if session.title.is_empty() {
            session.title = format!("The calls of {}.", session.name);
        }
        Ok(session)
    }

    /// What a program in any language is, as a text.
    pub(super) fn about(&self) -> String {
        let mut about = format!(
            "The calls of the lesson {} on both hosts, in their order, as one program on one machine. \
             Behind a call stands what it returned in the lesson.",
            self.name
        );
        if self.has_decisions {
            about += " The wire of the lesson held, lost or repeated packets. The loopback network passes \
                      all of them at once, so from there on a call can return sooner, or another result.";
        }
        about
    }

    /// The ports below 1024, for which a program needs privileges.
    pub(super) fn low_ports(&self) -> BTreeSet<u16> {
        let addresses = self.calls.iter().flat_map(|call| &call.args).filter_map(internet);
        addresses.map(|(_, port)| port).filter(|port| (1..1024).contains(port)).collect()
    }

    /// Whether it calls one of these functions.
    pub(super) fn calls_any(&self, functions: &[&str]) -> bool {
        self.calls.iter().any(|call| functions.contains(&call.function.as_str()))
    }

    pub(super) fn has_started(&self) -> bool {
        self.calls.iter().any(|call| call.is_started || call.can_differ && call.waits())
    }

    /// Whether it needs a folder: for paths of Unix sockets, and for programs that it runs.
    pub(super) fn uses_folder(&self) -> bool {
        self.calls_any(&["run", "unlink"])
            || self.calls.iter().any(|call| call.family == Family::Unix && call.function == "bind")
    }

    pub(super) fn has_limit(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Limit(_)))
    }
}

/// The parts of an internet address.
pub(super) fn internet(value: &Value) -> Option<(&str, u16)> {
    let Value::Tuple(parts) = value else { return None };
    match &parts[..] {
        [Value::Str(ip), Value::Int(port)] => Some((ip, u16::try_from(*port).ok()?)),
        _ => None,
    }
}

/// The host that has an address of the scenario.
pub(super) fn host_of(ip: &str) -> Option<HostName> {
    HostName::BOTH.into_iter().find(|host| SCENARIO[host.index()].to_string() == ip)
}

fn is_multicast(value: &Value) -> bool {
    let ip = internet(value).and_then(|(ip, _)| ip.parse::<std::net::IpAddr>().ok());
    ip.is_some_and(|ip| ip.is_multicast())
}

impl Builder {
    fn add(&mut self, event: &Json) -> Result<(), String> {
        let kind = text(event, "k");
        let used = ["meta", "source", "line", "call", "name", "ret", "kern", "pkt", "fate"];
        if used.contains(&kind) && has_invisible(event) {
            return Err(format!("an event {kind:?} has a character that is not shown"));
        }
        match kind {
            "meta" => self.session.name = text(event, "scenario").to_owned(),
            "source" => self.source(event),
            "line" => self.line(number(event, "line")),
            "paused" => self.is_paused = true,
            "call" if !event["tid"].is_null() => {
                return Err(
                    "a recording of watch cannot be exported: its calls are those of programs".to_owned()
                );
            }
            "call" => self.call(event)?,
            "name" => {
                let name = text(event, "name");
                check_name(name)?;
                self.named.push((name.to_owned(), text(event, "ck").to_owned()));
            }
            "ret" => self.returned(event),
            "kern" if !matches!(text(event, "peer"), "" | "*" | "*:*" | "0.0.0.0:*") => {
                self.session.peers.insert(text(event, "ck").to_owned(), text(event, "peer").to_owned());
            }
            "pkt" => {
                let packet = format!("{} from {}", text(event, "flags"), text(event, "from"));
                self.packets.insert(number(event, "id"), packet);
                self.session.has_decisions |= text(event, "fate") != "passed";
            }
            "fate" => {
                self.session.has_decisions = true;
                let packet = self.packets.get(&number(event, "id"));
                // What a line of the scenario decides is the line itself.
                if let Some(packet) = packet.filter(|_| self.is_paused) {
                    let text = format!("The wire: {packet} was {}.", text(event, "fate"));
                    self.comment(text);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn comment(&mut self, text: String) {
        self.session.steps.push(Step::Comment(text));
    }

    fn source(&mut self, event: &Json) {
        self.session.name = text(event, "name").to_owned();
        self.session.title = text(event, "title").to_owned();
        for line in event["lines"].as_array().into_iter().flatten() {
            self.lines.push(Line {
                kind: text(line, "k").to_owned(),
                text: text(line, "text").to_owned(),
                why: line["why"].as_str().map(str::to_owned),
            });
        }
        // The title stands in the head of the program.
        self.taken = usize::from(!self.session.title.is_empty());
    }

    fn line(&mut self, number: u64) {
        self.is_paused = false;
        for index in &self.open {
            self.session.calls[*index].is_started = true;
        }
        let end = usize::try_from(number).unwrap_or(usize::MAX).min(self.lines.len());
        for index in self.taken..end {
            let line = &self.lines[index];
            let (kind, text, why) = (line.kind.clone(), line.text.clone(), line.why.clone());
            if let Some(why) = why.filter(|why| !why.is_empty()) {
                self.comment(why);
            }
            // A line before this one did not run, such as one that is empty.
            if index + 1 == end {
                self.statement(&kind, &text);
            }
        }
        self.taken = self.taken.max(end);
    }

    fn statement(&mut self, kind: &str, text: &str) {
        match kind {
            "wire" => {
                self.session.has_decisions |= text != "wire pass";
                self.comment(format!("In the lesson: {text}"));
            }
            "expect" => self.comment(text.to_owned()),
            "wait" => {
                let seconds = text.trim_start_matches("wait").trim().trim_end_matches('s').parse();
                self.session.steps.push(Step::Wait(seconds.unwrap_or_default()));
            }
            "set" => match text
                .strip_prefix("limit descriptors")
                .and_then(|text| text.trim().parse::<u16>().ok())
            {
                Some(number) => self.session.steps.push(Step::Limit(number.into())),
                None => {
                    self.session.has_decisions = true;
                    self.comment(format!("In the lesson: {text}"));
                }
            },
            _ => {}
        }
    }

    fn call(&mut self, event: &Json) -> Result<(), String> {
        let (function, args_text) = (text(event, "fn").to_owned(), text(event, "args").to_owned());
        if number(event, "line") == 0 {
            return Err(
                "it is a recording of programs and not of a scenario; its calls are in their texts"
                    .to_owned(),
            );
        }
        let host = HostName::parse(text(event, "actor")).ok_or("a call without its host")?;
        let args = match function.as_str() {
            "run" => command::split(&args_text)?.into_iter().map(Value::Str).collect(),
            function if OF_HOST.contains(&function) || OF_SOCKET.contains(&function) => {
                let of_call = format!("{args_text})");
                let mut reader = Reader::new(&of_call);
                let problem = |problem| format!("the arguments ({args_text}): {problem}");
                let args = reader.values(")").map_err(problem)?;
                if !reader.rest().is_empty() {
                    return Err(problem("they end too early".to_owned()));
                }
                args
            }
            other => return Err(format!("{other:?} is not a function of a scenario")),
        };
        let object = text(event, "sock").to_owned();
        check_name(&object)?;
        let known = self.known.get(&object).copied().unwrap_or(match function.as_str() {
            "socket" | "socketpair" => {
                let has = |wanted: &str| args.iter().any(|value| value.to_string().contains(wanted));
                let family = match (function.as_str(), has("AF_INET6"), has("AF_UNIX") || args.is_empty()) {
                    (_, true, _) => Family::V6,
                    ("socketpair", _, true) | (_, _, true)
                        if has("AF_UNIX") || function == "socketpair" =>
                    {
                        Family::Unix
                    }
                    _ => Family::V4,
                };
                Known { family, is_stream: !has("SOCK_DGRAM"), timeout: None }
            }
            _ => Known { family: Family::V4, is_stream: true, timeout: None },
        });
        let is_of_group = ["join_group", "leave_group"].contains(&function.as_str());
        let needs_peer = [
            "accept",
            "connect",
            "connect_ex",
            "getpeername",
            "poll",
            "recv",
            "recv_fds",
            "recvfrom",
            "recvmsg",
            "send",
            "send_fds",
            "sendall",
            "sendmsg",
            "sendto",
            "shutdown",
        ];
        let is_changed = self.session.has_decisions && needs_peer.contains(&function.as_str());
        self.session.calls.push(Call {
            id: number(event, "id"),
            host,
            can_differ: is_changed || is_of_group || args.iter().any(is_multicast),
            object,
            function,
            args,
            text: args_text,
            line: number(event, "line"),
            outcome: Outcome::Open,
            targets: Vec::new(),
            is_started: false,
            family: known.family,
            is_stream: known.is_stream,
            timeout: known.timeout,
        });
        let index = self.session.calls.len() - 1;
        self.open.push(index);
        self.session.steps.push(Step::Call(index));
        Ok(())
    }

    fn returned(&mut self, event: &Json) {
        let named = std::mem::take(&mut self.named);
        let id = number(event, "id");
        let Some(place) = self.open.iter().position(|index| self.session.calls[*index].id == id) else {
            return;
        };
        let index = self.open.remove(place);
        let call = &mut self.session.calls[index];
        call.outcome = match event["errno"].as_str() {
            Some(name) => Outcome::Errno(name.to_owned()),
            None => Outcome::Value(text(event, "val").to_owned()),
        };
        call.targets = named;
        let known = Known { family: call.family, is_stream: call.is_stream, timeout: None };
        for (name, _) in &call.targets {
            self.known.insert(name.clone(), known);
        }
        if call.outcome == Outcome::Value("0".to_owned()) {
            let timeout = match (call.function.as_str(), call.args.first()) {
                ("settimeout", Some(Value::Float(seconds))) => Some(Some(*seconds)),
                ("settimeout", Some(Value::Int(seconds))) => Some(Some(*seconds as f64)),
                ("settimeout", Some(Value::None)) => Some(None),
                ("setblocking", Some(Value::Bool(false) | Value::Int(0))) => Some(Some(0.0)),
                ("setblocking", _) => Some(None),
                _ => None,
            };
            if let (Some(timeout), Some(known)) = (timeout, self.known.get_mut(&call.object)) {
                known.timeout = timeout;
            }
        }
        if call.is_started {
            self.session.steps.push(Step::End(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "{\"k\":\"meta\",\"v\":1,\"scenario\":\"x\"}\n";

    fn read(lines: &str) -> Result<Session, String> {
        Session::read(&format!("{HEAD}{lines}"))
    }

    #[test]
    fn what_is_no_recording_of_a_scenario_is_an_error() {
        let call = |rest: &str| format!("{{\"k\":\"call\",\"id\":1,\"fn\":\"recv\",{rest}}}");
        for (lines, expected) in [
            ("", "the recording has no call yet"),
            ("not json", "line 2 is not an event of a recording"),
            (&call("\"actor\":\"A\",\"args\":\"1\",\"line\":0"), "it is a recording of programs"),
            (&call("\"actor\":\"C\",\"args\":\"1\",\"line\":1"), "a call without its host"),
            (&call("\"actor\":\"A\",\"args\":\"(\",\"line\":1"), "the arguments (()"),
            (&call("\"actor\":\"A\",\"args\":\"1); f(\",\"line\":1"), "the arguments (1); f(): they end"),
            (&call("\"actor\":\"A\",\"args\":\"1\",\"line\":1,\"sock\":\"S;f()\""), "\"S;f()\" is not"),
            (
                &call("\"actor\":\"A\",\"args\":\"1\",\"line\":1").replace("recv", "recv(1); f"),
                "\"recv(1); f\" is not a function",
            ),
            ("{\"k\":\"name\",\"ck\":\"1\",\"name\":\"x = f()\"}", "\"x = f()\" is not the name"),
            ("{\"k\":\"ret\",\"id\":1,\"val\":\"\",\"errno\":\"E\\nf()\"}", "an event \"ret\" has"),
            ("{\"k\":\"ret\",\"id\":1,\"val\":\"\\u001b[2J\",\"errno\":null}", "an event \"ret\" has"),
            ("{\"k\":\"source\",\"title\":\"\\u202e\"}", "an event \"source\" has"),
            ("{\"k\":\"source\",\"lines\":[{\"why\":\"a\\nf()\"}]}", "an event \"source\" has"),
        ] {
            let problem = read(lines).unwrap_err();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn a_call_that_goes_on_is_started_and_ends_where_it_returned() {
        let session = read(
            r#"{"k":"line","line":1}
{"k":"call","id":1,"actor":"A","sock":"A","fn":"socketpair","args":"AF_UNIX, SOCK_STREAM","line":1}
{"k":"name","ck":"1","name":"U"}
{"k":"name","ck":"2","name":"V"}
{"k":"ret","id":1,"val":"(fd 3, fd 4)","errno":null}
{"k":"line","line":2}
{"k":"call","id":2,"actor":"A","sock":"U","fn":"recv","args":"5","line":2}
{"k":"line","line":3}
{"k":"call","id":3,"actor":"A","sock":"V","fn":"sendall","args":"b\"hello\"","line":3}
{"k":"ret","id":2,"val":"b\"hello\"","errno":null}
{"k":"ret","id":3,"val":"0","errno":null}
"#,
        )
        .unwrap();
        let steps: Vec<_> = session.steps.iter().map(|step| format!("{step:?}")).collect();
        assert_eq!(steps, ["Call(0)", "Call(1)", "Call(2)", "End(1)"]);
        assert_eq!(
            session.calls.iter().map(|call| call.is_started).collect::<Vec<_>>(),
            [false, true, false]
        );
        assert_eq!(session.calls[1].family, Family::Unix);
        assert_eq!(session.calls[0].targets.len(), 2);
    }
}
