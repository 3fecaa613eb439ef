//! A recording as a program in Python.

use std::fmt::Write as _;

use crate::event::HostName;
use crate::export::session::{Call, Family, Outcome, Session, Step, host_of, internet};
use crate::export::words::{name, repeated, wrapped};
use crate::scenario::parse::is_invisible;
use crate::value::{EVENTS, Value};

/// Words that the program uses itself.
const TAKEN: &str = "False None True and as assert async await break class continue def del elif else except \
    finally for from global if import in is lambda nonlocal not or pass raise return try while \
    with yield LIMIT FOLDER contextlib errno os resource select shutil socket struct subprocess \
    tempfile threading time start end within shown show poll run recv_fds group print \
    limit_descriptors data Started bytes len repr range super OSError TimeoutError";

const SHOW: &str = r#"
def show(call, value):
    """Prints the result of a call, of long data the beginning."""
    text = repr(value)
    print(f"{call}: {text if len(text) < 100 else text[:50] + '...'}")

"#;

const SHOWN: &str = r#"
@contextlib.contextmanager
def shown(call):
    """Prints the error of a call, and goes on."""
    try:
        yield
    except OSError as error:
        print(f"{call}: {errno.errorcode.get(error.errno, error)}")

"#;

const START: &str = r#"
class Started(threading.Thread):
    """A call in a thread of its own, because it can block."""

    def __init__(self, function, arguments):
        super().__init__(daemon=True)
        self.function, self.arguments = function, arguments
        self.value = self.error = None

    def run(self):
        try:
            self.value = self.function(*self.arguments)
        except OSError as error:
            self.error = error


def start(function, *arguments):
    """Starts a call, and waits a moment so that it blocks before the next call is made."""
    call = Started(function, arguments)
    call.start()
    call.join(0.2)
    return call


def end(call):
    """Waits until a call that was started returns."""
    call.join(LIMIT)
    if call.is_alive():
        raise TimeoutError("still blocks")
    if call.error:
        raise call.error
    return call.value

"#;

const WITHIN: &str = r#"
def within(function, *arguments):
    """Makes a call that can block for ever without the wire of the lesson."""
    return end(start(function, *arguments))

"#;

const POLL: &str = r#"
def poll(sock, events, seconds=None):
    """Waits until a socket is ready, and returns its events; 0 when the time is over."""
    waiting = select.poll()
    waiting.register(sock, events)
    ready = waiting.poll(None if seconds is None else seconds * 1000)
    return ready[0][1] if ready else 0

"#;

const RECV_FDS: &str = r#"
def recv_fds(sock, size, count):
    """Receives data and sockets from a Unix socket."""
    data, descriptors, _, _ = socket.recv_fds(sock, size, count)
    return data, [socket.socket(fileno=descriptor) for descriptor in descriptors]

"#;

const RUN: &str = r#"
def run(*command):
    """Runs a program, which inherits what is inheritable."""
    environment = {**os.environ, "SOCKLENS_FOLDER": FOLDER}
    return subprocess.call(command, close_fds=False, env=environment)

"#;

const GROUP: &str = r#"
def group(sock, joins, address):
    """Joins or leaves a multicast group."""
    option = socket.IP_ADD_MEMBERSHIP if joins else socket.IP_DROP_MEMBERSHIP
    sock.setsockopt(socket.IPPROTO_IP, option, socket.inet_aton(address) + bytes(4))

"#;

const LIMIT: &str = r#"
def limit_descriptors(more):
    """Leaves room for so many descriptors."""
    free = [os.dup(0) for _ in range(more + 1)]
    for descriptor in free:
        os.close(descriptor)
    maximum = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], maximum))

"#;

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c < ' ' || c == '\x7f' => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c if is_invisible(c) => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

fn bytes(bytes: &[u8]) -> String {
    match repeated(bytes) {
        Some((part, count)) => format!("b\"{}\" * {count}", part.escape_ascii()),
        None => format!("b\"{}\"", bytes.escape_ascii()),
    }
}

fn word(word: &str) -> String {
    match (EVENTS.iter().any(|(event, _)| *event == word), crate::value::constant(word)) {
        (true, _) => format!("select.{word}"),
        (_, Some(_)) => format!("socket.{word}"),
        _ if word.starts_with("SHUT_") => format!("socket.{word}"),
        _ => name(word, TAKEN),
    }
}

fn literal(value: &Value) -> String {
    let all = |values: &[Value]| values.iter().map(literal).collect::<Vec<_>>().join(", ");
    match value {
        Value::Bytes(data) => bytes(data),
        Value::Str(text) => quoted(text),
        Value::Names(names) => names.iter().map(|name| word(name)).collect::<Vec<_>>().join(" | "),
        Value::Tuple(values) if values.len() == 1 => format!("({},)", all(values)),
        Value::Tuple(values) => format!("({})", all(values)),
        Value::List(values) => format!("[{}]", all(values)),
        other => other.to_string(),
    }
}

fn address(call: &Call, value: &Value) -> String {
    let Some((ip, port)) = internet(value) else { return literal(value) };
    let port = if (1..1024).contains(&port) { format!("PORT_{port}") } else { port.to_string() };
    let ip = match (host_of(ip), call.family, ip.parse::<std::net::Ipv4Addr>()) {
        (Some(host), Family::V6, _) => format!("\"::ffff:\" + {host}"),
        (Some(host), _, _) => host.to_string(),
        (None, Family::V6, Ok(ip)) => format!("\"::ffff:{ip}\""),
        _ => quoted(ip),
    };
    format!("({ip}, {port})")
}

/// What is called, and its arguments.
fn parts(call: &Call) -> (String, Vec<String>) {
    let object = name(&call.object, TAKEN);
    let args = || call.args.iter().map(literal).collect::<Vec<_>>();
    let with_object = |mut rest: Vec<String>| {
        rest.insert(0, object.clone());
        rest
    };
    let first = || call.args.first().map(literal).unwrap_or_default();
    match call.function.as_str() {
        "socket" | "socketpair" => (format!("socket.{}", call.function), args()),
        "unlink" => ("os.unlink".to_owned(), args()),
        "run" => ("run".to_owned(), args()),
        "poll" if call.args.is_empty() => {
            ("poll".to_owned(), with_object(vec!["select.POLLIN".to_owned()]))
        }
        "poll" | "recv_fds" => (call.function.clone(), with_object(args())),
        "bind" | "connect" | "connect_ex" | "sendto" => {
            let args = call.args.iter().map(|value| address(call, value)).collect();
            (format!("{object}.{}", call.function), args)
        }
        "join_group" => ("group".to_owned(), vec![object.clone(), "True".to_owned(), first()]),
        "leave_group" => ("group".to_owned(), vec![object.clone(), "False".to_owned(), first()]),
        "setsockopt" => {
            let mut args = args();
            if let Some(Value::Tuple(pair)) = call.args.get(2) {
                let pair: Vec<_> = pair.iter().map(literal).collect();
                args[2] = format!("struct.pack(\"ii\", {})", pair.join(", "));
            }
            (format!("{object}.setsockopt"), args)
        }
        "send_fds" => {
            let data = match call.args.first() {
                Some(Value::List(_)) => first(),
                _ => format!("[{}]", first()),
            };
            let fds = match call.args.get(1) {
                Some(Value::List(list)) => {
                    list.iter().map(|value| format!("{}.fileno()", literal(value))).collect()
                }
                _ => Vec::new(),
            };
            ("socket.send_fds".to_owned(), vec![object.clone(), data, format!("[{}]", fds.join(", "))])
        }
        function => (format!("{object}.{function}"), args()),
    }
}

/// The statement around an expression that has the result of a call.
fn statement(call: &Call, expression: &str) -> String {
    let target = |index: usize| call.targets.get(index).map_or("_".to_owned(), |(to, _)| name(to, TAKEN));
    match call.function.as_str() {
        "accept" if !call.targets.is_empty() => format!("{}, _ = {expression}", target(0)),
        "socket" | "dup" if !call.targets.is_empty() => format!("{} = {expression}", target(0)),
        "socketpair" => format!("{}, {} = {expression}", target(0), target(1)),
        "recv_fds" if !call.targets.is_empty() => {
            let all: Vec<_> = (0..call.targets.len()).map(target).collect();
            format!("data, [{}] = {expression}", all.join(", "))
        }
        _ if call.is_shown() => format!("show({}, {expression})", quoted(&call.title())),
        _ => expression.to_owned(),
    }
}

/// Puts remarks into one column, as long as the line is short.
fn put(text: &mut String, code: &str, remark: &str) {
    if remark.is_empty() {
        let _ = writeln!(text, "{code}");
    } else {
        let _ = writeln!(text, "{code:<46}  # {remark}");
    }
}

fn put_call(text: &mut String, call: &Call, expression: &str) {
    let statement = statement(call, expression);
    if matches!(call.outcome, Outcome::Errno(_)) || call.can_differ {
        put(text, &format!("with shown({}):", quoted(&call.title())), "");
        put(text, &format!("    {statement}"), &call.remark());
    } else {
        put(text, &statement, &call.remark());
    }
}

fn steps(session: &Session) -> String {
    let mut text = String::new();
    for step in &session.steps {
        match step {
            Step::Comment(comment) => {
                for line in wrapped(comment, 96) {
                    let _ = writeln!(text, "# {line}");
                }
            }
            Step::Wait(seconds) => put(&mut text, &format!("time.sleep({seconds})"), ""),
            Step::Limit(more) => put(&mut text, &format!("limit_descriptors({more})"), ""),
            Step::Call(index) => {
                let call = &session.calls[*index];
                let (callee, args) = parts(call);
                let started = [std::slice::from_ref(&callee), &args[..]].concat().join(", ");
                if call.is_started || call.outcome == Outcome::Open {
                    let variable = name(&call.variable(), TAKEN);
                    put(&mut text, &format!("{variable} = start({started})"), "blocks");
                } else if call.can_differ && call.waits() {
                    put_call(&mut text, call, &format!("within({started})"));
                } else {
                    put_call(&mut text, call, &format!("{callee}({})", args.join(", ")));
                }
            }
            Step::End(index) => {
                let call = &session.calls[*index];
                put_call(&mut text, call, &format!("end({})", name(&call.variable(), TAKEN)));
            }
        }
    }
    text
}

pub(super) fn program(session: &Session) -> String {
    let body = steps(session);
    let uses = |word: &str| body.contains(word);
    let has_started = session.has_started() || uses("start(");
    let helpers: Vec<(bool, &str)> = vec![
        (uses("show("), SHOW),
        (uses("with shown("), SHOWN),
        (has_started, START),
        (uses("within("), WITHIN),
        (uses("poll("), POLL),
        (uses("recv_fds("), RECV_FDS),
        (session.calls_any(&["run"]), RUN),
        (uses("group("), GROUP),
        (session.has_limit(), LIMIT),
    ];
    let helpers: String = helpers.into_iter().filter(|(used, _)| *used).map(|(_, text)| text).collect();
    let folder = session.uses_folder();
    let all = format!("{helpers}{body}");
    let imports: Vec<_> = [
        ("contextlib", all.contains("contextlib.")),
        ("errno", all.contains("errno.")),
        ("os", true),
        ("resource", all.contains("resource.")),
        ("select", all.contains("select.")),
        ("shutil", folder),
        ("socket", true),
        ("struct", all.contains("struct.")),
        ("subprocess", all.contains("subprocess.")),
        ("tempfile", folder),
        ("threading", all.contains("threading.")),
        ("time", all.contains("time.")),
    ]
    .into_iter()
    .filter(|(_, used)| *used)
    .map(|(name, _)| format!("import {name}\n"))
    .collect();
    // A docstring ends with its quotes.
    let plain = |text: &str| text.replace('\\', "\\\\").replace('"', "'");
    let about = wrapped(&plain(&session.about()), 96).join("\n");
    let mut text = format!("\"\"\"{}\n\n{about}\n\"\"\"\n\n", plain(&session.title));
    text += &imports.concat();
    let _ = write!(
        text,
        "\n# The addresses of the hosts. That of B differs in each run, because TIME-WAIT keeps a port.\n\
         {} = \"127.0.0.1\"\n{} = f\"127.1.{{os.getpid() // 256 % 256}}.{{os.getpid() % 256}}\"\n",
        HostName::A,
        HostName::B
    );
    let ports = session.low_ports();
    if !ports.is_empty() {
        text += "# A port below 1024 needs privileges.\n";
    }
    for port in ports {
        let _ = writeln!(text, "PORT_{port} = {}", 8000 + port);
    }
    if has_started {
        text += "# Seconds after which a call that blocks is given up.\nLIMIT = 10\n";
    }
    if folder {
        text += "# Where the paths of Unix sockets are.\nFOLDER = tempfile.mkdtemp()\n";
    }
    if helpers.is_empty() {
        text.push('\n');
    } else {
        let _ = write!(text, "\n{helpers}\n");
    }
    if folder {
        text += "os.chdir(FOLDER)\n";
    }
    text += &body;
    if folder {
        text += "shutil.rmtree(FOLDER)\n";
    }
    text
}
