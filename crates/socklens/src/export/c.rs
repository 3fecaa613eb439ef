//! A recording as a program in C.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::event::HostName;
use crate::export::c_helpers::HELPERS;
use crate::export::session::{Call, Family, Outcome, Session, Step, elements, host_of, internet};
use crate::export::words::{milliseconds, name, repeated, wrapped};
use crate::value::Value;

/// Words that the program uses itself, and macros of compilers.
const TAKEN: &str = "auto break case char const continue default do double else enum extern float for goto if \
    inline int long register restrict return short signed sizeof static struct switch typedef \
    union unsigned void volatile while main errno linux unix stdin stdout stderr LIMIT NULL EOF \
    accept accept4 alarm bind close connect dup fcntl free getpid listen poll printf read recv \
    recvfrom recvmsg send sendmsg sendto setsockopt getsockopt shutdown signal socket socketpair \
    system time unlink usleep write shown must start end started address ipv4 ipv6 unix_path \
    bind_to connect_to send_to send_all receive ready group repeat run index remove exit abort \
    asm typeof I stat select wait kill link pause sleep sync y0 y1 \
    own folder action in_time connect_in_time print_data new_buffer print_address \
    receive_from receive_message send_parts set_option set_linger get_option set_blocking \
    print_name send_fds receive_fds make_pair limit_descriptors remove_folder on_alarm \
    run_started";

fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' | b'?' => text.extend(['\\', char::from(*byte)]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b' '..=b'~' => text.push(char::from(*byte)),
            byte => {
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text + "\""
}

/// Data and its length, as two arguments.
fn data(value: Option<&Value>) -> String {
    let Some(Value::Bytes(bytes)) = value else { return "\"\", 0".to_owned() };
    match repeated(bytes) {
        Some((part, count)) => {
            format!("repeat({}, {}, {count}), {}", quoted(part), part.len(), bytes.len())
        }
        None => format!("{}, {}", quoted(bytes), bytes.len()),
    }
}

fn literal(value: Option<&Value>, default: &str) -> String {
    match value {
        None | Some(Value::None) => default.to_owned(),
        Some(Value::Bool(value)) => u8::from(*value).to_string(),
        Some(Value::Str(text)) => quoted(text.as_bytes()),
        Some(other) => other.to_string(),
    }
}

fn address(call: &Call, value: Option<&Value>) -> String {
    let Some((ip, port)) = value.and_then(internet) else {
        let Some(Value::Str(path)) = value else { return "ipv4(\"\", 0)".to_owned() };
        return format!("unix_path({}, {})", quoted(path.as_bytes()), path.len());
    };
    let port = if (1..1024).contains(&port) { format!("PORT_{port}") } else { port.to_string() };
    let ip = host_of(ip).map_or_else(|| quoted(ip.as_bytes()), |host| host.to_string());
    let function = if call.family == Family::V6 { "ipv6" } else { "ipv4" };
    format!("{function}({ip}, {port})")
}

fn target(call: &Call, index: usize) -> Option<String> {
    call.targets.get(index).map(|(target, _)| name(target, TAKEN))
}

/// The expression of a call. Empty for a function without a system call.
fn expression(call: &Call) -> String {
    let fd = name(&call.object, TAKEN);
    let (first, second) = (call.args.first(), call.args.get(1));
    let flags = literal(second, "0");
    let plain = match call.function.as_str() {
        "socket" => format!(
            "socket({}, {} | SOCK_CLOEXEC, {})",
            literal(first, "AF_INET"),
            literal(second, "SOCK_STREAM"),
            literal(call.args.get(2), "0")
        ),
        "socketpair" => {
            let to = |index| target(call, index).unwrap_or_else(|| "unnamed".to_owned());
            let (family, kind) = (literal(first, "AF_UNIX"), literal(second, "SOCK_STREAM"));
            format!("make_pair(&{}, &{}, {family}, {kind})", to(0), to(1))
        }
        "accept" => format!("accept4({fd}, NULL, NULL, SOCK_CLOEXEC)"),
        "bind" => format!("bind_to({fd}, {})", address(call, first)),
        "connect" | "connect_ex" => match call.timeout.filter(|seconds| *seconds > 0.0) {
            Some(seconds) if call.function == "connect" => {
                let limit = milliseconds(Some(&Value::Float(seconds)));
                return format!("connect_in_time({fd}, {}, {limit})", address(call, first));
            }
            _ => format!("connect_to({fd}, {})", address(call, first)),
        },
        "listen" => format!("listen({fd}, {})", literal(first, "128")),
        "send" => match second {
            Some(flags) => format!("send({fd}, {}, {flags} | MSG_NOSIGNAL)", data(first)),
            None => format!("send({fd}, {}, MSG_NOSIGNAL)", data(first)),
        },
        "sendall" => format!("send_all({fd}, {})", data(first)),
        "sendto" => format!("send_to({fd}, {}, {})", data(first), address(call, second)),
        "sendmsg" => {
            let parts = elements(first);
            let count = parts.len();
            let parts: Vec<_> =
                parts.iter().map(|part| format!("{{ (char *){} }}", data(Some(part)))).collect();
            format!("send_parts({fd}, (struct iovec[]){{ {} }}, {count})", parts.join(", "))
        }
        "send_fds" => {
            let fds: Vec<_> = match second {
                Some(Value::List(list)) => {
                    list.iter().map(|value| name(&value.to_string(), TAKEN)).collect()
                }
                _ => Vec::new(),
            };
            format!(
                "send_fds({fd}, {}, (int[]){{ {} }}, {})",
                data(elements(first).first()),
                fds.join(", "),
                fds.len()
            )
        }
        "recv_fds" => {
            let to: Vec<_> = (0..call.targets.len()).filter_map(|index| target(call, index)).collect();
            let to: Vec<_> = to.iter().map(|name| format!("&{name}")).collect();
            let size = literal(first, "0");
            match to.len() {
                0 => format!("receive_fds({fd}, {size}, NULL, 0)"),
                count => {
                    format!("receive_fds({fd}, {size}, (int *[]){{ {} }}, {count})", to.join(", "))
                }
            }
        }
        "recv" => format!("receive({fd}, {}, {flags})", literal(first, "0")),
        "recvfrom" => format!("receive_from({fd}, {}, {flags})", literal(first, "0")),
        "recvmsg" => format!("receive_message({fd}, {})", literal(first, "0")),
        "shutdown" => format!("shutdown({fd}, {})", literal(first, "SHUT_RDWR")),
        "close" => format!("close({fd})"),
        "dup" => format!("fcntl({fd}, F_DUPFD_CLOEXEC, 0)"),
        "setsockopt" => match call.args.get(2) {
            Some(Value::Bytes(_)) => format!(
                "setsockopt({fd}, {}, {}, {})",
                literal(first, "0"),
                literal(second, "0"),
                data(call.args.get(2))
            ),
            Some(Value::Tuple(pair)) => {
                format!("set_linger({fd}, {}, {})", literal(pair.first(), "0"), literal(pair.get(1), "0"))
            }
            other => format!(
                "set_option({fd}, {}, {}, {})",
                literal(first, "0"),
                literal(second, "0"),
                literal(other, "0")
            ),
        },
        "getsockopt" => format!("get_option({fd}, {}, {})", literal(first, "0"), literal(second, "0")),
        "poll" => format!("ready({fd}, {}, {})", literal(first, "POLLIN"), milliseconds(second)),
        "settimeout" => format!("set_blocking({fd}, {})", u8::from(matches!(first, Some(Value::None)))),
        "setblocking" => format!("set_blocking({fd}, {})", literal(first, "1")),
        "set_inheritable" => match first {
            Some(Value::Bool(false) | Value::Int(0)) => format!("fcntl({fd}, F_SETFD, FD_CLOEXEC)"),
            _ => format!("fcntl({fd}, F_SETFD, 0)"),
        },
        "getsockname" => format!("print_name({fd}, 0)"),
        "getpeername" => format!("print_name({fd}, 1)"),
        "join_group" => format!("group({fd}, IP_ADD_MEMBERSHIP, {})", literal(first, "\"\"")),
        "leave_group" => format!("group({fd}, IP_DROP_MEMBERSHIP, {})", literal(first, "\"\"")),
        "unlink" => format!("unlink({})", literal(first, "\"\"")),
        "run" => {
            let words: Vec<_> = call.args.iter().map(|word| literal(Some(word), "\"\"")).collect();
            format!("run((char *[]){{{}, NULL}})", words.join(", "))
        }
        _ => String::new(),
    };
    let event = match call.function.as_str() {
        "accept" | "recv" | "recvfrom" | "recvmsg" | "recv_fds" => "POLLIN",
        "send" | "sendall" | "sendto" | "sendmsg" | "send_fds" => "POLLOUT",
        _ => "",
    };
    match call.timeout.filter(|seconds| *seconds > 0.0 && !event.is_empty()) {
        Some(seconds) => {
            let limit = milliseconds(Some(&Value::Float(seconds)));
            format!("in_time({fd}, {event}, {limit}) ? {plain} : -1")
        }
        None => plain,
    }
}

fn comment(text: &str) -> String {
    text.replace("*/", "* /").replace("/*", "/ *")
}

/// A line with a remark behind it, as long as the line is short.
fn put(text: &mut String, code: &str, remark: &str) {
    if remark.is_empty() {
        let _ = writeln!(text, "    {code}");
    } else {
        let _ = writeln!(text, "    {code:<58} /* {} */", comment(remark));
    }
}

fn put_call(text: &mut String, call: &Call, expression: &str) {
    // connect_ex returns its error as a value.
    let is_error = matches!(call.outcome, Outcome::Errno(_)) || call.function == "connect_ex";
    let goes_on = is_error || call.can_differ;
    let function = if goes_on { "shown" } else { "must" };
    let wrapped = format!("{function}({}, {expression})", quoted(call.title().as_bytes()));
    let makes_one = ["socket", "accept", "dup"].contains(&call.function.as_str());
    let code = match target(call, 0).filter(|_| makes_one) {
        Some(target) => format!("{target} = (int){wrapped};"),
        None => format!("{wrapped};"),
    };
    put(text, &code, &call.remark());
}

/// The steps of main, and the functions of the calls that have a thread.
fn steps(session: &Session) -> (String, String) {
    let (mut text, mut functions) = (String::new(), String::new());
    for step in &session.steps {
        match step {
            Step::Comment(remark) => {
                for line in wrapped(remark, 88) {
                    put(&mut text, &format!("/* {} */", comment(&line)), "");
                }
            }
            Step::Wait(seconds) => {
                put(&mut text, &format!("usleep({});", (seconds * 1e6) as u64), "");
            }
            Step::Limit(more) => {
                let code = format!("must(\"limit descriptors\", limit_descriptors({more}));");
                put(&mut text, &code, "");
            }
            Step::Call(index) => {
                let call = &session.calls[*index];
                let expression = expression(call);
                if expression.is_empty() {
                    let remark = format!("{}: the sockets of C have no such state", call.title());
                    put(&mut text, &format!("/* {remark} */"), "");
                } else if call.is_started || call.outcome == Outcome::Open {
                    let variable = name(&call.variable(), TAKEN);
                    let _ = write!(
                        functions,
                        "\n/* Line {}: {}({}) */\nstatic long {variable}_call(void)\n{{\n    return {expression};\n}}\n\
                         \nstatic struct started {variable} = {{ .call = {variable}_call }};\n",
                        call.line,
                        comment(&call.title()),
                        comment(&call.text)
                    );
                    put(&mut text, &format!("start(&{variable});"), "blocks");
                } else if call.can_differ && call.waits() {
                    put(&mut text, "alarm(LIMIT);", "");
                    put_call(&mut text, call, &expression);
                    put(&mut text, "alarm(0);", "");
                } else {
                    put_call(&mut text, call, &expression);
                }
            }
            Step::End(index) => {
                let call = &session.calls[*index];
                put_call(&mut text, call, &format!("end(&{})", name(&call.variable(), TAKEN)));
            }
        }
    }
    (text, functions)
}

/// Without its comments.
fn code_of(text: &str) -> String {
    let parts = text.split("/*").enumerate().map(|(index, part)| match part.split_once("*/") {
        Some((_, code)) if index > 0 => code,
        _ => part,
    });
    parts.collect()
}

/// Whether a text calls a function.
fn calls(text: &str, function: &str) -> bool {
    text.match_indices(function).any(|(place, _)| {
        let before = text[..place].chars().next_back();
        let is_whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '"');
        is_whole && text[place + function.len()..].starts_with('(')
    })
}

/// The helpers that a text needs, and those that they need.
fn helpers(text: &str) -> String {
    let mut all = code_of(text);
    let mut chosen = BTreeSet::new();
    for (index, (name, body)) in HELPERS.iter().enumerate().rev() {
        if calls(&all, name) {
            all += &code_of(body);
            chosen.insert(index);
        }
    }
    chosen.into_iter().map(|index| HELPERS[index].1).collect()
}

pub(super) fn program(session: &Session) -> String {
    let (body, functions) = steps(session);
    let folder = session.uses_folder();
    let sockets: BTreeSet<String> = session
        .calls
        .iter()
        .filter(|call| call.function != "run")
        .flat_map(|call| (0..call.targets.len()).filter_map(|index| target(call, index)))
        .collect();
    let steps = code_of(&format!("{functions}{body}"));
    let alarms = body.contains("alarm(LIMIT)");
    let mut needed = steps.clone();
    for (is_used, words) in [(folder, " remove_folder() "), (alarms, " on_alarm() ")] {
        needed += if is_used { words } else { "" };
    }
    let helpers = helpers(&needed);
    let mut text = String::from("/*\n");
    let build = format!("cc -Wall -Wextra -pthread -o {0} {0}.c", session.name.trim_end_matches(".scn"));
    for part in [&session.title, &session.about(), &build] {
        for line in wrapped(part, 92) {
            let _ = writeln!(text, " * {}", comment(&line));
        }
        text += " *\n";
    }
    text.truncate(text.len() - 3);
    text += " */\n#define _GNU_SOURCE\n";
    for header in [
        "arpa/inet.h",
        "dirent.h",
        "errno.h",
        "fcntl.h",
        "netinet/in.h",
        "netinet/tcp.h",
        "poll.h",
        "pthread.h",
        "signal.h",
        "stdatomic.h",
        "stddef.h",
        "stdint.h",
        "stdio.h",
        "stdlib.h",
        "string.h",
        "sys/resource.h",
        "sys/socket.h",
        "sys/un.h",
        "sys/wait.h",
        "unistd.h",
    ] {
        let _ = writeln!(text, "#include <{header}>");
    }
    let uses = |host: HostName| ["ipv4", "ipv6"].iter().any(|f| steps.contains(&format!("{f}({host}, ")));
    let uses_b = uses(HostName::B);
    if uses(HostName::A) {
        text += "\n/* The address of host A. */\nstatic const char *A = \"127.0.0.1\";\n";
    }
    if uses_b {
        text += "\n/* The address of host B. NULL is one of this machine that differs in each run, because \
                 TIME-WAIT\n   keeps a port. */\nstatic const char *B = NULL;\n";
    }
    let ports = session.low_ports();
    if !ports.is_empty() {
        text += "\n/* A port below 1024 needs privileges. */\n";
        let ports: Vec<_> = ports.iter().map(|port| format!("PORT_{port} = {}", 8000 + port)).collect();
        let _ = writeln!(text, "enum {{ {} }};", ports.join(", "));
    }
    if alarms || helpers.contains("LIMIT") {
        text += "\n/* Seconds after which a call that blocks is given up. */\nenum { LIMIT = 10 };\n";
    }
    if helpers.contains("struct address") {
        text += "\nstruct address {\n    struct sockaddr_storage storage;\n    socklen_t length;\n};\n";
    }
    text += &helpers;
    if !sockets.is_empty() {
        text += "\n/* The sockets of the lesson. */\n";
    }
    for socket in &sockets {
        let _ = writeln!(text, "static int {socket} = -1;");
    }
    text += &functions;
    text += "\nint main(void)\n{\n";
    if uses_b {
        text += "    char own[32];\n";
    }
    if folder {
        text += "    char folder[] = \"/tmp/socklens-XXXXXX\";\n";
    }
    if uses_b {
        text += "    if (B == NULL) {\n        snprintf(own, sizeof own, \"127.1.%d.%d\", getpid() / 256 % 256, \
                 getpid() % 256);\n        B = own;\n    }\n";
    }
    if alarms {
        text += "    struct sigaction action = { .sa_handler = on_alarm };\n    sigaction(SIGALRM, &action, NULL);\n";
    }
    if folder {
        text += "    if (mkdtemp(folder) == NULL || chdir(folder) < 0 || setenv(\"SOCKLENS_FOLDER\", folder, 1) < 0) {\n\
                 \x20       perror(folder);\n        return 1;\n    }\n";
    }
    text += "\n";
    text += &body;
    if folder {
        text += "    remove_folder(folder);\n";
    }
    text += "    return 0;\n}\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_socket_has_the_name_of_a_helper() {
        for (helper, _) in HELPERS {
            assert_eq!(name(helper, TAKEN), format!("{helper}_socket"));
        }
    }
}
