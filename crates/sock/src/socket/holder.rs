//! Which socket holds a port or a path, and which process holds the socket: `/proc/net` and the
//! descriptors of the processes. For hints only.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use crate::socket::tcp_info::TcpState;

/// The folder of the namespace of this thread. `/proc/net` is that of the main thread.
const NET: &str = "/proc/thread-self/net";

/// Time values in these files have this unit on every system (proc(5), `USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// What holds a port.
#[derive(Debug)]
pub(super) enum Held {
    /// Closed connections, of which the last ends after `longest`.
    TimeWait {
        count: usize,
        longest: Duration,
    },
    Socket {
        state: String,
        owner: Owner,
    },
    /// `/proc/net` does not list sockets that are bound, and neither listen nor are connected.
    Unknown,
}

/// The process that has a descriptor of a socket.
#[derive(Debug, PartialEq)]
pub(super) enum Owner {
    This,
    Process {
        pid: u32,
        name: String,
        age: Option<Duration>,
    },
    /// The descriptors of other users' processes cannot be read.
    User(u32),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::This => f.write_str("this process itself"),
            Owner::Process { pid, name, age: Some(age) } => {
                write!(f, "process {pid} ({name}), which was started {} s ago,", age.as_secs())
            }
            Owner::Process { pid, name, age: None } => write!(f, "process {pid} ({name})"),
            Owner::User(uid) => write!(f, "a process of the user with the number {uid}"),
        }
    }
}

/// A line of `/proc/net/tcp` or `udp`.
#[derive(Debug, PartialEq)]
struct Row {
    local: SocketAddr,
    state: u8,
    /// Time that is left of the timer.
    left: Duration,
    uid: u32,
    inode: u64,
}

/// `0100007F:1F90`: words of the address in the byte order of the machine, and the port.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(SocketAddr::new(ip, port))
}

fn parse_row(line: &str) -> Option<Row> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let [_, local, _, state, _, timer, _, uid, _, inode, ..] = fields[..] else { return None };
    let ticks = u64::from_str_radix(timer.split_once(':')?.1, 16).ok()?;
    Some(Row {
        local: parse_address(local)?,
        state: u8::from_str_radix(state, 16).ok()?,
        left: Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND),
        uid: uid.parse().ok()?,
        inode: inode.parse().ok()?,
    })
}

/// Whether sockets with these addresses exclude each other. A wildcard of IPv6 is one of IPv4 too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any =
        |ip: IpAddr| ip == IpAddr::from(Ipv4Addr::UNSPECIFIED) || ip == IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let (first, second) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (first == second || any(first) || any(second))
}

/// Returns what holds a port.
pub(super) fn of_port(wanted: SocketAddr, is_udp: bool) -> Held {
    let files = if is_udp { ["udp", "udp6"] } else { ["tcp", "tcp6"] };
    let mut rows = Vec::new();
    for file in files {
        let text = fs::read_to_string(format!("{NET}/{file}")).unwrap_or_default();
        rows.extend(text.lines().skip(1).filter_map(parse_row).filter(|row| overlap(row.local, wanted)));
    }
    held_by(rows, is_udp)
}

fn held_by(rows: Vec<Row>, is_udp: bool) -> Held {
    let state = |row: &Row| TcpState::from_number(row.state);
    let is_over = |row: &Row| !is_udp && state(row) == TcpState::TimeWait;
    // A listener is the usual reason, even if it has connections as well.
    let listens = |row: &&Row| !is_udp && state(row) == TcpState::Listen;
    let open = rows.iter().find(listens).or_else(|| rows.iter().find(|row| !is_over(row)));
    if let Some(row) = open {
        let state = match is_udp {
            true => "UNCONN".to_owned(),
            false => state(row).to_string(),
        };
        return Held::Socket { state, owner: owner_of(row.inode, row.uid) };
    }
    match rows.iter().map(|row| row.left).max() {
        Some(longest) => Held::TimeWait { count: rows.len(), longest },
        None => Held::Unknown,
    }
}

/// Returns the owner of the Unix socket that is bound to a path.
pub(super) fn of_path(wanted: &Path) -> Option<Owner> {
    let text = fs::read(format!("{NET}/unix")).ok()?;
    let inode = text.split(|byte| *byte == b'\n').find_map(|line| bound_inode(line, wanted))?;
    // The file has no user.
    Some(owner_of(inode, u32::MAX))
}

/// `Num: RefCount Protocol Flags Type St Inode Path`
fn bound_inode(line: &[u8], wanted: &Path) -> Option<u64> {
    let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let inode = std::str::from_utf8(fields.nth(6)?).ok()?.parse().ok()?;
    // A path may have spaces.
    let start = line.iter().position(|byte| *byte == b'/' || *byte == b'.');
    let path = start.map_or_else(|| fields.next().unwrap_or_default(), |start| &line[start..]);
    is_same_path(Path::new(OsStr::from_bytes(path)), wanted).then_some(inode)
}

/// A relative path belongs to a folder that is not listed, so its file name has to be enough.
fn is_same_path(bound: &Path, wanted: &Path) -> bool {
    bound == wanted
        || bound.file_name() == wanted.file_name() && (bound.is_relative() || full(bound) == full(wanted))
}

fn full(path: &Path) -> Option<std::path::PathBuf> {
    fs::canonicalize(path).ok()
}

/// Returns the process that has a descriptor of the socket. If several have one it is the oldest,
/// because children inherit descriptors.
fn owner_of(inode: u64, uid: u32) -> Owner {
    let this = std::process::id();
    let mut processes = holders(inode);
    if processes.contains(&this) {
        return Owner::This;
    }
    processes.sort_unstable();
    match processes.first() {
        Some(pid) => Owner::Process { pid: *pid, name: name_of(*pid), age: age_of(*pid) },
        None => Owner::User(uid),
    }
}

/// The processes that have a descriptor of a socket, once for each descriptor.
fn holders(inode: u64) -> Vec<u32> {
    let target = format!("socket:[{inode}]");
    let mut found = Vec::new();
    let Ok(processes) = fs::read_dir("/proc") else { return found };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            if fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == target.as_str()) {
                found.push(pid);
            }
        }
    }
    found
}

/// Returns whether the socket of a descriptor has another descriptor, in this or another process.
pub(super) fn is_shared(fd: i32) -> bool {
    let link = fs::read_link(format!("/proc/thread-self/fd/{fd}")).unwrap_or_default();
    let inode =
        link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
    inode.is_some_and(|inode| holders(inode).len() > 1)
}

fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// How long ago a process was started.
fn age_of(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may have brackets and spaces. The start is the 20th field after it.
    let start: f64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    Duration::try_from_secs_f64(uptime - start / TICKS_PER_SECOND).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0";

    fn row(local: &str, state: u8, seconds: u64) -> Row {
        Row {
            local: local.parse().unwrap(),
            state,
            left: Duration::from_secs(seconds),
            uid: 0,
            inode: u64::MAX,
        }
    }

    #[test]
    fn a_row_of_the_file_is_read() {
        let read = parse_row(TCP).unwrap();
        assert_eq!((read.state, read.uid, read.inode), (0x0A, 1000, 4711));
        if cfg!(target_endian = "little") {
            assert_eq!(read.local, "127.0.0.1:8080".parse().unwrap());
        }
        for broken in
            ["", "  sl  local_address rem_address", "0: 01:1 2 3 4 5 6 7 8 9", "0: é:é 0 0 0 0 0 0 0 0"]
        {
            assert_eq!(parse_row(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_wildcard_overlaps_with_every_address_of_the_port() {
        let addresses = [
            "127.0.0.1:80",
            "0.0.0.0:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
            "10.0.0.1:80",
            "127.0.0.1:81",
        ];
        let overlaps =
            addresses.map(|other| overlap("127.0.0.1:80".parse().unwrap(), other.parse().unwrap()));
        assert_eq!(overlaps, [true, true, true, true, false, false]);
    }

    #[test]
    fn an_open_socket_is_preferred_to_time_wait() {
        let (listen, time_wait, established) = (10, 6, 1);
        let held = held_by(vec![row("1.1.1.1:80", time_wait, 9), row("1.1.1.1:80", time_wait, 42)], false);
        assert!(
            matches!(held, Held::TimeWait { count: 2, longest } if longest.as_secs() == 42),
            "{held:?}"
        );
        for states in [[time_wait, listen], [established, listen]] {
            let held = held_by(states.map(|state| row("1.1.1.1:80", state, 0)).into(), false);
            assert!(matches!(&held, Held::Socket { state, .. } if state == "LISTEN"), "{held:?}");
        }
        assert!(matches!(held_by(Vec::new(), false), Held::Unknown));
    }

    #[test]
    fn a_path_with_spaces_is_read() {
        let line = b"0000000000000000: 00000002 00000000 00010000 0001 01 4711 /tmp/a b";
        assert_eq!(bound_inode(line, Path::new("/tmp/a b")), Some(4711));
        assert_eq!(bound_inode(line, Path::new("/tmp/a")), None);
        assert_eq!(
            bound_inode(b"Num RefCount Protocol Flags Type St Inode Path", Path::new("/tmp/a")),
            None
        );
    }

    #[test]
    fn this_process_is_not_a_stranger() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let held = of_port(listener.local_addr().unwrap(), false);
        assert!(matches!(&held, Held::Socket { owner: Owner::This, .. }), "{held:?}");
        assert!(age_of(std::process::id()).is_some_and(|age| age.as_secs() < 3600));
        assert!(!name_of(std::process::id()).is_empty());
    }
}
