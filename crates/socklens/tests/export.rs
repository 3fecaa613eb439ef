//! The promises of exported programs: each compiles without a warning, runs to its end, and makes the
//! calls of its recording with the same results, as strace(1) sees them.
//!
//! `SOCKLENS_EXPORT=all` takes all lessons, and not only a few.
#![cfg(target_os = "linux")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// Lessons of the short form: each kind of call, calls that block, errors, and two hosts.
const SHORT: [&str; 9] = [
    "hello",
    "blocked",
    "half_close",
    "timeouts",
    "udp_truncation",
    "unix_datagram",
    "unix_descriptors",
    "emfile",
    "linger_reset",
];

/// Lessons whose results differ on a network without a wire that holds or loses packets. Their
/// programs make the same calls.
const DIFFERENT: [&str; 7] =
    ["connect_timeout", "dead_peer", "reset", "simultaneous_open", "udp_loss", "multicast", INTERACTIVE];

/// The lesson hello in a page: a user decides about packets, and stops before the end.
const INTERACTIVE: &str = "interactive";

/// Calls that no lesson has, names that are words of the languages, and texts that could end a
/// comment or a string.
const EVERY_CALL: (&str, &str) = (
    "every_call",
    r##"# A title with """ and */ /* and \ at its end \
# Second """ line */ with code \
L = B.socket(AF_INET, SOCK_STREAM)   # why */ """ \
int = A.socket(AF_INET, SOCK_STREAM)
in = A.socket(AF_INET, SOCK_STREAM)
fn = A.socket(AF_UNIX, SOCK_STREAM)
PORT_80 = A.socket(AF_INET, SOCK_DGRAM)
L.bind(("10.0.0.2", 80))
L.listen()
L.getsockname()
L.getsockopt(SOL_SOCKET, SO_REUSEADDR) -> 0
int.setblocking(False)
int.connect_ex(("10.0.0.2", 80)) -> EINPROGRESS
int.poll(POLLOUT, 2) -> POLLOUT
int.setblocking(True)
int.settimeout(2)
int.gettimeout() -> 2.0
int.getblocking()
main = L.accept()
int.sendmsg([b"he*/ad??/ \x00\xff\"", b"body"])
main.recv(100)
main.recvmsg(10) &
L.settimeout(None)
int.send(b"x" * 5, MSG_DONTWAIT)
join main
int.getpeername()
int.setsockopt(SOL_SOCKET, SO_LINGER, (1, 0))
int.setsockopt(SOL_SOCKET, SO_KEEPALIVE, True)
int.setsockopt(IPPROTO_TCP, TCP_NODELAY, b"\x01\x00\x00\x00")
in.bind(("127.0.0.1", 0))
fn.bind("a path with \" quote")
run A "echo '\"*/'"
A.unlink("a path with \" quote")
PORT_80.sendto(b"ab" * 50, ("10.0.0.2", 53))
PORT_80.close()
int.close()
main.recv(5) -> ECONNRESET
"##,
);

fn socklens(arguments: &[&str]) -> Output {
    Command::new("timeout").arg("100").arg(env!("CARGO_BIN_EXE_socklens")).args(arguments).output().unwrap()
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        not_run(&format!("{program} is not installed"));
    }
    found
}

/// Prints what does not run. It is a failure if the tests of socklens are required.
fn not_run(reason: &str) {
    assert!(std::env::var_os("SOCK_REQUIRE_LENS").is_none(), "{reason}");
    eprintln!("NOT RUN: {reason}");
}

fn lessons() -> Vec<String> {
    if std::env::var("SOCKLENS_EXPORT").as_deref() != Ok("all") {
        return SHORT.into_iter().chain([EVERY_CALL.0, INTERACTIVE]).map(str::to_owned).collect();
    }
    let list = String::from_utf8(socklens(&["list"]).stdout).unwrap();
    let names = list.lines().map(|line| line.split(' ').next().unwrap());
    names.chain([EVERY_CALL.0, INTERACTIVE]).map(str::to_owned).collect()
}

/// Records a lesson. `None` where it cannot run.
fn record(folder: &Path, lesson: &str) -> Option<PathBuf> {
    let file = folder.join(format!("{lesson}.jsonl"));
    if lesson == INTERACTIVE {
        let recording = record_interactively(folder)?;
        fs::write(&file, recording).unwrap();
        return Some(file);
    }
    let mut source = lesson.to_owned();
    if lesson == EVERY_CALL.0 {
        let text = folder.join("every_call.source.scn");
        fs::write(&text, EVERY_CALL.1).unwrap();
        source = text.to_str().unwrap().to_owned();
    }
    let ran = socklens(&["run", &source, "--quiet", "--jsonl", file.to_str().unwrap()]);
    match ran.status.code() {
        Some(0) => Some(file),
        Some(77) => {
            not_run(&String::from_utf8_lossy(&ran.stdout));
            None
        }
        _ => panic!("{}", String::from_utf8_lossy(&ran.stdout)),
    }
}

/// A server of lessons.
struct Server {
    child: Child,
    authority: String,
    token: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Server {
    fn start(scenario: &Path) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_socklens"))
            .arg("serve")
            .arg(scenario)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = lines.find(|line| line.contains("http://")).unwrap();
        let (authority, token) = address.trim().split_once("/?token=").unwrap();
        let authority = authority.strip_prefix("http://").unwrap().to_owned();
        Server { child, authority, token: token.to_owned() }
    }

    /// The body of an answer.
    fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.authority).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nX-Socklens-Token: {}\r\nConnection: close\r\n\r\n",
            self.authority, self.token
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
        body.to_owned()
    }

    /// The recording, once it has these texts in one line.
    fn recording_with(&self, parts: &[&str]) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let recording = self.ask("GET", "/session.jsonl");
            if recording.lines().any(|line| parts.iter().all(|part| line.contains(part))) {
                return recording;
            }
            assert!(Instant::now() < end, "{parts:?} is missing in {recording}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Drops the SYN, delivers the one that the kernel sends again, and then the SYN+ACK, as a user of the
/// page does it, and the ACK while accept blocks, and stops before the end. What the server exports is what the program exports.
fn record_interactively(folder: &Path) -> Option<String> {
    let scenario = folder.join("hello.scn");
    fs::write(&scenario, socklens(&["show", "hello"]).stdout).unwrap();
    let server = Server::start(&scenario);
    let begun = server.recording_with(&["{\"k\":"]);
    if begun.contains("{\"k\":\"notrun\"") {
        not_run(&begun);
        return None;
    }
    server.ask("POST", "/until/11");
    server.recording_with(&["\"k\":\"paused\"", "\"next\":11}"]);
    server.ask("POST", "/packet/1/drop");
    server.recording_with(&["\"k\":\"pkt\"", "\"id\":2", "\"flags\":\"SYN\""]);
    server.ask("POST", "/packet/2/deliver");
    let deliver = |flags: &str| {
        let parts = ["\"k\":\"pkt\"", flags];
        let recording = server.recording_with(&parts);
        let packet = recording.lines().find(|line| parts.iter().all(|part| line.contains(part))).unwrap();
        let id = packet.split("\"id\":").nth(1).unwrap().split(',').next().unwrap();
        server.ask("POST", &format!("/packet/{id}/deliver"));
    };
    deliver("\"flags\":\"SYN+ACK\"");
    server.recording_with(&["\"k\":\"ret\"", "\"val\":\"0\"", "\"id\":5"]);
    server.ask("POST", "/until/17");
    server.recording_with(&["\"k\":\"call\"", "\"fn\":\"accept\""]);
    server.recording_with(&["\"k\":\"paused\"", "\"next\":17}"]);
    deliver("\"flags\":\"ACK\"");
    server.recording_with(&["\"k\":\"ret\"", "\"id\":6", "\"val\":\"fd "]);
    let recording = server.ask("GET", "/session.jsonl");
    let file = folder.join("interactive.saved.jsonl");
    fs::write(&file, &recording).unwrap();
    for (extension, language) in [("py", "python"), ("rs", "rust"), ("c", "c"), ("strace", "strace")] {
        let served = server.ask("GET", &format!("/session.{extension}"));
        assert_eq!(served, export(&file, language), "{language}");
    }
    Some(recording)
}

fn export(recording: &Path, language: &str) -> String {
    let output = socklens(&["export", recording.to_str().unwrap(), "--to", language]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program on a host of a lab, where it has a loopback network of its own, and returns what
/// strace has seen.
fn run(folder: &Path, lesson: &str, program: &str, with_strace: bool) -> Result<String, String> {
    let (trace, output) = (folder.join(format!("{lesson}.trace")), folder.join(format!("{lesson}.out")));
    let strace = match with_strace {
        true => format!("strace -f -o {} -e trace=%network,close,fcntl,execve ", trace.display()),
        false => String::new(),
    };
    let scenario = folder.join(format!("{lesson}.scn"));
    let command = format!("{strace}{program} > {} 2>&1", output.display());
    fs::write(&scenario, format!("run B sh -c '{command}' -> 0 within 90s\n")).unwrap();
    let ran = socklens(&["run", scenario.to_str().unwrap(), "--quiet"]);
    let printed = fs::read_to_string(&output).unwrap_or_default();
    if !ran.status.success() {
        return Err(format!("{lesson}: {}\n{printed}", String::from_utf8_lossy(&ran.stdout)));
    }
    Ok(if with_strace { fs::read_to_string(&trace).unwrap() } else { String::new() })
}

/// A system call of a trace: its name, its arguments and its result.
#[derive(Debug)]
struct System {
    name: String,
    args: String,
    result: String,
}

/// The system calls of a trace, in the order in which they returned.
fn systems(trace: &str) -> Vec<System> {
    let pid_of = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    // `python3` can be a script that ends with an execve(2) of the interpreter, and a shell asks the
    // system for names over a socket. An export has no execve(2) of its process.
    let lines: Vec<&str> = trace.lines().collect();
    let main = lines.first().map(|line| pid_of(line)).filter(|main| main != "[pid");
    let executed = |line: &str| line.contains("execve") && line.ends_with(" = 0");
    let begin = lines.iter().rposition(|line| Some(pid_of(line)) == main && executed(line));
    let of_program = || lines.iter().copied().skip(begin.map_or(0, |begin| begin + 1));
    // Programs that the program runs close descriptors of their own.
    let others: Vec<_> = of_program().filter(|line| line.contains(" execve(")).map(pid_of).collect();
    let mut begun: HashMap<String, (String, usize)> = HashMap::new();
    let mut systems: Vec<System> = Vec::new();
    for line in of_program() {
        let line = line.trim_start_matches("[pid").trim_start();
        let Some((pid, rest)) = line.split_once([' ', ']']) else { continue };
        let rest = rest.trim_start();
        if others.iter().any(|other| other == pid) {
            continue;
        }
        let whole = if let Some(rest) = rest.strip_prefix("<... ") {
            let Some((_, end)) = rest.split_once(" resumed>") else { continue };
            let Some((begin, _)) = begun.remove(pid) else { continue };
            format!("{begin}{end}")
        } else if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(pid.to_owned(), (begin.to_owned(), systems.len()));
            continue;
        } else {
            rest.to_owned()
        };
        let Some((name, rest)) = whole.split_once('(') else { continue };
        let Some((args, result)) = rest.rsplit_once(" = ") else { continue };
        let args = args.trim_end().trim_end_matches(')');
        systems.push(System { name: name.to_owned(), args: args.to_owned(), result: result.to_owned() });
    }
    // Calls that never returned.
    let mut open: Vec<_> = begun.into_values().collect();
    open.sort_by_key(|(_, place)| *place);
    for (begin, _) in open {
        let (name, args) = begin.split_once('(').unwrap();
        systems.push(System { name: name.to_owned(), args: args.to_owned(), result: "open".to_owned() });
    }
    systems
}

/// Addresses of the programs as those of the lessons.
fn address(args: &str) -> String {
    let port = args.split("port=htons(").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
    let port: u32 = port.parse().unwrap_or_default();
    let port = if (8001..9024).contains(&port) && port != 8080 { port - 8000 } else { port };
    // A lesson uses this port itself.
    let port = if port == 8080 { 80 } else { port };
    let ip = args.split(['"']).find(|part| part.contains('.') && part.parse::<std::net::IpAddr>().is_ok());
    let ip = ip.unwrap_or_default();
    let ip = if ip == "127.0.0.1" {
        "A"
    } else if ip.starts_with("127.1.") {
        "B"
    } else {
        ip
    };
    format!("{}:{port}", ip.replace("10.0.0.1", "A").replace("10.0.0.2", "B"))
}

/// What is compared, for each socket in the order of their creation. Flags, numbers of descriptors
/// and ports that the kernel selects differ between languages and runs.
fn by_socket(trace: &str, with_results: bool, with_retries: bool) -> Vec<Vec<String>> {
    let mut sockets: Vec<Vec<String>> = Vec::new();
    let mut known: HashMap<(String, u32), usize> = HashMap::new();
    let is_export = trace.starts_with("[pid");
    for (index, system) in systems(trace).iter().enumerate() {
        // The hosts of an export are processes of their own, and have descriptors of their own.
        let space = match is_export {
            true => trace_host(trace, index),
            false => String::new(),
        };
        let fd =
            |text: &str| text.trim().split([',', ' ', ')']).next().unwrap_or_default().parse::<u32>().ok();
        let result = match system.result.split(' ').next().unwrap() {
            "-1" => system.result.split(' ').nth(1).unwrap().to_owned(),
            // The program ended before the call.
            "?" => "open".to_owned(),
            other => other.to_owned(),
        };
        let mut made = |number: Option<u32>, sockets: &mut Vec<Vec<String>>, how: &str| {
            if let Some(number) = number {
                known.insert((space.clone(), number), sockets.len());
                sockets.push(vec![how.to_owned()]);
            }
        };
        let shown = if with_results { result.clone() } else { String::new() };
        match system.name.as_str() {
            "socket" => {
                // Python's libraries ask the system for its names, and have no internet socket open.
                let kind = system.args.split(", ").take(2).collect::<Vec<_>>().join(" ");
                made(fd(&result), &mut sockets, &kind.replace("|SOCK_CLOEXEC", ""));
                continue;
            }
            "socketpair" => {
                let (_, pair) = system.args.rsplit_once('[').unwrap();
                for number in pair.trim_end_matches(']').split(", ") {
                    made(fd(number), &mut sockets, "socketpair");
                }
                continue;
            }
            _ => {}
        }
        let Some(socket) = fd(&system.args).and_then(|fd| known.get(&(space.clone(), fd))).copied() else {
            continue;
        };
        let length =
            |place: usize| system.args.rsplit(", ").nth(place).and_then(|text| text.parse::<u64>().ok());
        let text = match system.name.as_str() {
            "bind" | "connect" => format!("{} {} {shown}", system.name, address(&system.args)),
            "accept" | "accept4" => {
                let number = fd(&result).filter(|_| result != "open");
                let shown = if number.is_some() { "" } else { shown.as_str() };
                sockets[socket].push(format!("accept {shown}"));
                let mut made = |number: Option<u32>| {
                    if let Some(number) = number {
                        known.insert((space.clone(), number), sockets.len());
                        sockets.push(vec!["accepted".to_owned()]);
                    }
                };
                made(number);
                continue;
            }
            "recvmsg" if system.args.contains("cmsg_data=[") => {
                let (_, rest) = system.args.split_once("cmsg_data=[").unwrap();
                let number = fd(rest.split(']').next().unwrap());
                known.insert((space.clone(), number.unwrap()), sockets.len());
                sockets.push(vec!["passed".to_owned()]);
                format!("recvmsg {shown}")
            }
            // The size of a part of a large block is the kernel's.
            "sendto" => match (length(3), result.parse::<u64>()) {
                (Some(length), Ok(sent)) if sent < length => "sendto a part".to_owned(),
                (Some(length), _) if length > 100_000 => "sendto a part".to_owned(),
                _ => format!("sendto {shown}"),
            },
            "recvfrom" if system.args.contains("00000, ") => "recvfrom a part".to_owned(),
            "setsockopt" => {
                let parts: Vec<_> = system.args.split(", ").skip(1).take(2).collect();
                // Two names of the same.
                let name = parts.join(" ").replace("MCAST_JOIN_GROUP", "IP_ADD_MEMBERSHIP");
                format!("setsockopt {} {shown}", name.replace("MCAST_LEAVE_GROUP", "IP_DROP_MEMBERSHIP"))
            }
            "fcntl" if system.args.contains("F_DUPFD_CLOEXEC") => {
                known.insert((space.clone(), fd(&result).unwrap()), sockets.len());
                sockets.push(vec!["duplicate".to_owned()]);
                "dup".to_owned()
            }
            // Languages differ in how they change the mode of a socket.
            "fcntl" | "ioctl" => continue,
            // Of a new object of Python, of one that is destroyed, and of a connection with a timeout.
            "getsockname" | "getpeername" => continue,
            "getsockopt" if system.args.contains("SOL_SOCKET, SO_") => continue,
            "close" => {
                known.remove(&(space.clone(), fd(&system.args).unwrap()));
                "close".to_owned()
            }
            name => format!("{name} {shown}"),
        };
        let list = &mut sockets[socket];
        // A large block is sent in parts.
        if text != "sendto a part" || list.last() != Some(&text) {
            list.push(text);
        }
    }
    for list in &mut sockets {
        if !with_retries {
            list.retain(|text| !text.ends_with(" EAGAIN"));
        }
        // A language can close sockets at the end of a program.
        if list.last().is_some_and(|last| last == "close") {
            list.pop();
        }
        // A result that never came is none of a call.
        for text in list.iter_mut() {
            *text = text.trim_end().to_owned();
        }
    }
    sockets
}

/// The host of the system call with this number in an export.
fn trace_host(trace: &str, index: usize) -> String {
    let returned = trace.lines().filter(|line| line.contains(" = "));
    let line = returned.chain(trace.lines().filter(|line| line.contains("<unfinished"))).nth(index);
    line.map_or(String::new(), |line| line[5..8].trim().chars().take(1).collect())
}

/// Runs the program of a lesson and compares its calls.
fn check(
    folder: &Path,
    lesson: &str,
    program: &str,
    recording: &Path,
    with_strace: bool,
) -> Result<(), String> {
    let trace = run(folder, lesson, program, with_strace)?;
    if !with_strace {
        return Ok(());
    }
    let with_results = !DIFFERENT.contains(&lesson);
    // `sock` makes a call before it waits in poll(2), and Python waits first.
    let with_retries = !program.ends_with(".rust");
    let calls = |trace: &str| by_socket(trace, with_results, with_retries);
    let (wanted, found) = (calls(&export(recording, "strace")), calls(&trace));
    if found == wanted {
        return Ok(());
    }
    let list = |sockets: &[Vec<String>]| -> String {
        sockets.iter().map(|socket| format!("    {}\n", socket.join(", "))).collect()
    };
    Err(format!(
        "{lesson}: the sockets of the program with their calls\n{}  and those of the recording\n{}{trace}",
        list(&found),
        list(&wanted)
    ))
}

/// Does this for each lesson, two at a time.
fn each(lessons: &[String], body: impl Fn(&str) -> Result<(), String> + Sync) {
    let problems = Mutex::new(String::new());
    for two in lessons.chunks(2) {
        thread::scope(|scope| {
            for lesson in two {
                let (body, problems) = (&body, &problems);
                scope.spawn(move || {
                    if let Err(problem) = body(lesson) {
                        *problems.lock().unwrap() += &format!("{problem}\n");
                    }
                });
            }
        });
    }
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{problems}");
}

/// Records each lesson and does this with the folder, the lesson and the recording.
fn each_recording(body: impl Fn(&Path, &str, &Path) -> Result<(), String> + Sync) {
    let folder = tempfile::tempdir().unwrap();
    each(&lessons(), |lesson| match record(folder.path(), lesson) {
        Some(recording) => body(folder.path(), lesson, &recording),
        None => Ok(()),
    });
}

#[test]
fn an_exported_program_in_python_makes_the_calls_of_its_recording() {
    if !has("python3") {
        return;
    }
    let with_strace = has("strace");
    each_recording(|folder, lesson, recording| {
        let file = folder.join(format!("{lesson}.py"));
        fs::write(&file, export(recording, "python")).unwrap();
        check(folder, lesson, &format!("python3 {}", file.display()), recording, with_strace)
    });
}

#[test]
fn an_exported_program_in_c_compiles_without_a_warning_and_makes_the_calls_of_its_recording() {
    if !has("gcc") {
        return;
    }
    let with_strace = has("strace");
    each_recording(|folder, lesson, recording| {
        let (file, program) = (folder.join(format!("{lesson}.c")), folder.join(format!("{lesson}.bin")));
        fs::write(&file, export(recording, "c")).unwrap();
        let compiled = Command::new("gcc")
            .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread", "-o"])
            .args([&program, &file])
            .output()
            .unwrap();
        if !compiled.status.success() {
            return Err(format!("{lesson}: {}", String::from_utf8_lossy(&compiled.stderr)));
        }
        check(folder, lesson, program.to_str().unwrap(), recording, with_strace)
    });
}

/// All programs are built at once, as one package.
#[test]
fn an_exported_program_in_rust_compiles_without_a_warning_and_makes_the_calls_of_its_recording() {
    let with_strace = has("strace");
    let project = tempfile::tempdir().unwrap();
    let programs = project.path().join("src/bin");
    fs::create_dir_all(&programs).unwrap();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let manifest = format!(
        "[package]\nname = \"exported\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         sock.path = {:?}\n\n[workspace]\n",
        crates.join("sock")
    );
    fs::write(project.path().join("Cargo.toml"), manifest).unwrap();
    fs::copy(crates.join("../Cargo.lock"), project.path().join("Cargo.lock")).unwrap();
    // The folder of the workspace has its dependencies already.
    let target = Path::new(env!("CARGO_BIN_EXE_socklens")).parent().unwrap().parent().unwrap().to_owned();
    let recorded = Mutex::new(Vec::new());
    each_recording(|_, lesson, recording| {
        fs::write(programs.join(format!("{lesson}.rs")), export(recording, "rust")).unwrap();
        fs::copy(recording, project.path().join(format!("{lesson}.jsonl"))).unwrap();
        recorded.lock().unwrap().push(lesson.to_owned());
        Ok(())
    });
    let built = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--quiet", "--bins", "--manifest-path"])
        .arg(project.path().join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success() && !messages.contains("warning:"), "{messages}");
    each(&recorded.into_inner().unwrap(), |lesson| {
        let recording = project.path().join(format!("{lesson}.jsonl"));
        // The folder of the workspace keeps no program.
        let program = project.path().join(format!("{lesson}.rust"));
        fs::copy(target.join("debug").join(lesson), &program).unwrap();
        fs::remove_file(target.join("debug").join(lesson)).unwrap();
        check(project.path(), lesson, program.to_str().unwrap(), &recording, with_strace)
    });
}
