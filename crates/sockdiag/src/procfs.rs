//! The fallback: the files of `/proc/net`, proc_net(5).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sock::{AF_INET, AF_INET6, AddressFamily, TcpState, UnixAddress};

use crate::error::with_context;
use crate::row::{AcceptQueue, Protocol, Row, Timer, user, v6_address};
use crate::unix::UnixRow;

/// The longest line that is read: a Unix socket's name has 108 bytes.
const LINE: u64 = 4096;

/// Kernel times are in hundredths of a second here (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// The folder of the calling thread's network namespace. `/proc/net` is that of the process's main
/// thread. Linux before 3.17 has only that.
fn folder() -> &'static Path {
    let of_thread = Path::new("/proc/thread-self/net");
    if of_thread.exists() { of_thread } else { Path::new("/proc/net") }
}

fn file_name(protocol: Protocol, family: AddressFamily) -> &'static str {
    match (protocol, family == AF_INET6) {
        (Protocol::Tcp, false) => "tcp",
        (Protocol::Tcp, true) => "tcp6",
        (Protocol::Udp, false) => "udp",
        (Protocol::Udp, true) => "udp6",
    }
}

fn open(name: &str) -> io::Result<BufReader<File>> {
    let path = folder().join(name);
    let file = File::open(&path)
        .map_err(|error| with_context(format!("cannot open {}", path.display()), error))?;
    Ok(BufReader::with_capacity(32 * 1024, file))
}

/// Returns an error if the files cannot be read.
pub(crate) fn check() -> io::Result<()> {
    open("tcp").map(drop)
}

/// Calls `each` with every TCP or UDP socket of a family.
pub(crate) fn each_inet(
    protocol: Protocol,
    family: AddressFamily,
    mut each: impl FnMut(Row),
) -> io::Result<()> {
    let file = match open(file_name(protocol, family)) {
        // A kernel without IPv6 has no such file, and no such sockets.
        Err(error) if family == AF_INET6 && error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    each_line(file, |line| {
        let row = std::str::from_utf8(line).ok().and_then(|line| inet_row(line, protocol, family));
        row.map(&mut each)
    })
}

/// Calls `each` with every Unix socket.
pub(crate) fn each_unix(each: impl FnMut(UnixRow)) -> io::Result<()> {
    each_unix_in(open("unix")?, each)
}

fn each_unix_in(file: impl BufRead, mut each: impl FnMut(UnixRow)) -> io::Result<()> {
    // The kernel does not escape a newline in a name, so the name may continue on the next lines.
    let mut last: Option<UnixRow> = None;
    each_line(file, |line| {
        if let Some(row) = unix_row(line) {
            last.replace(row).into_iter().for_each(&mut each);
            return Some(());
        }
        let name = match &mut last.as_mut()?.address {
            UnixAddress::Path(path) => path.as_mut_os_string(),
            UnixAddress::Abstract(name) => {
                *name = [name, line].join(&b'\n').into();
                return Some(());
            }
            _ => return None,
        };
        name.push("\n");
        name.push(OsStr::from_bytes(line));
        Some(())
    })?;
    last.into_iter().for_each(each);
    Ok(())
}

/// Calls `read` with each line but the first, which names the columns.
fn each_line(mut file: impl BufRead, mut read: impl FnMut(&[u8]) -> Option<()>) -> io::Result<()> {
    use std::io::Read as _;
    let mut line = Vec::new();
    let mut number = 0;
    while file.by_ref().take(LINE).read_until(b'\n', &mut line)? > 0 {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if number > 0 && read(text).is_none() && !text.is_empty() {
            let text = format!("line {} is not a socket: {}", number + 1, text.escape_ascii());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        number += 1;
        line.clear();
    }
    Ok(())
}

/// Reads a line of `tcp`, `tcp6`, `udp` or `udp6`:
///
/// ```text
///   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode …
///    0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5177 …
/// ```
pub(crate) fn inet_row(line: &str, protocol: Protocol, family: AddressFamily) -> Option<Row> {
    let mut columns = line.split_ascii_whitespace();
    columns.next()?.strip_suffix(':')?;
    let local = address(columns.next()?, family)?;
    let peer = address(columns.next()?, family)?;
    let state = TcpState::from_number(u8::from_str_radix(columns.next()?, 16).ok()?);
    let (send_queue, recv_queue) = two_numbers(columns.next()?)?;
    let (timer, ticks) = two_numbers(columns.next()?)?;
    let retransmits = u32::from_str_radix(columns.next()?, 16).ok()?;
    let uid = columns.next()?.parse().ok()?;
    let probes: u32 = columns.next()?.parse().ok()?;
    let inode = columns.next()?.parse().ok()?;
    // A timer without an answer is counted in one column or in the other.
    let retransmits = retransmits.max(probes).min(u8::MAX.into()) as u8;
    let timer = match protocol {
        Protocol::Tcp => Timer::from_number(timer.try_into().ok()?, TICK * ticks, retransmits),
        Protocol::Udp => None,
    };
    let is_listener = protocol == Protocol::Tcp && state == TcpState::Listen;
    Some(Row {
        protocol,
        family,
        state,
        local,
        peer,
        interface: None,
        cookie: None,
        recv_queue: if is_listener { 0 } else { recv_queue },
        send_queue: if is_listener { 0 } else { send_queue },
        accept_queue: is_listener.then_some(AcceptQueue { waiting: recv_queue, limit: None }),
        timer,
        uid: user(uid, inode),
        inode,
        shutdown: None,
        v6only: None,
        memory: None,
        congestion: None,
        info: None,
    })
}

/// `0100007F:0CEA`: words in the processor's byte order, and a port.
fn address(text: &str, family: AddressFamily) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = ip.get(8 * at..8 * at + 8)?;
        // A sign is no digit.
        let digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(digits)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match (ip.len(), family == AF_INET) {
        (8, true) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(word(0)?)), port)),
        (32, false) => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let octets: [u8; 16] = words.try_into().ok()?;
            Some(v6_address(Ipv6Addr::from(octets), port, 0))
        }
        _ => None,
    }
}

/// `00000000:0000000A`, two hexadecimal numbers.
fn two_numbers(text: &str) -> Option<(u32, u32)> {
    let (first, second) = text.split_once(':')?;
    Some((u32::from_str_radix(first, 16).ok()?, u32::from_str_radix(second, 16).ok()?))
}

/// Reads a line of `unix`:
///
/// ```text
/// Num       RefCount Protocol Flags    Type St Inode Path
/// 0000000000000000: 00000002 00000000 00010000 0001 01  5177 /run/sock
/// ```
pub(crate) fn unix_row(line: &[u8]) -> Option<UnixRow> {
    // A path may have spaces, so only the columns before it are separated.
    let mut rest = line;
    let mut texts = [""; 7];
    for text in &mut texts {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        *text = std::str::from_utf8(&rest[..end]).ok().filter(|text| !text.is_empty())?;
        rest = &rest[end..];
    }
    let [number, _references, _protocol, flags, kind, state, inode] = texts;
    number.strip_suffix(':')?;
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let state = match u8::from_str_radix(state, 16).ok()? {
        // The flag is __SO_ACCEPTCON of linux/net.h, the numbers are SS_UNCONNECTED and so on.
        _ if flags & 0x1_0000 != 0 => TcpState::Listen,
        2 => TcpState::SynSent,
        3 => TcpState::Established,
        _ => TcpState::Close,
    };
    let address = match rest.strip_prefix(b" ").unwrap_or_default() {
        [] => UnixAddress::Unnamed,
        // Every NUL of an abstract name is shown as `@`, the first one too.
        [b'@', name @ ..] => UnixAddress::Abstract(name.into()),
        path => UnixAddress::Path(PathBuf::from(OsStr::from_bytes(path))),
    };
    let kind = i32::from(u16::from_str_radix(kind, 16).ok()?).into();
    Some(UnixRow { address, ..UnixRow::new(kind, state, inode.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::TimerKind;

    #[test]
    fn a_listener_is_read() {
        let line = "   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000002 00:00000000 00000000     7        0 5177 1 \
                    ffff 100 0 0 10 0";
        let row = inet_row(line, Protocol::Tcp, AF_INET).unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(row.local, "127.0.0.1:3306".parse().unwrap());
        }
        assert_eq!((row.state, row.uid, row.inode, row.timer), (TcpState::Listen, Some(7), 5177, None));
        assert_eq!(row.accept_queue, Some(AcceptQueue { waiting: 2, limit: None }));
        assert_eq!((row.recv_queue, row.send_queue, row.cookie), (0, 0, None));
    }

    #[test]
    fn an_ipv6_connection_with_a_timer_is_read() {
        let line = "12: 0000000000000000FFFF00000100007F:A2C2 0000000000000000FFFF00000100007F:0050 01 \
                    0000000A:00000005 01:00000014 00000003  1000        0 99 2 ffff";
        let row = inet_row(line, Protocol::Tcp, AF_INET6).unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(row.peer, "[::ffff:127.0.0.1]:80".parse().unwrap());
        }
        assert_eq!((row.send_queue, row.recv_queue), (10, 5));
        let timer = Timer::from_number(1, Duration::from_millis(200), 3).unwrap();
        assert_eq!((row.timer, timer.kind), (Some(timer), TimerKind::Retransmit));
    }

    #[test]
    fn a_line_that_was_cut_is_no_socket() {
        let line = "0: 0100007F:0CEA 00000000:0000 0A 00000000:00000002 00:00000000 00000000 0 0 5177";
        for length in 0..line.len() - 4 {
            assert_eq!(inet_row(&line[..length], Protocol::Tcp, AF_INET), None, "{length}");
        }
        let line = "ffff: 00000002 00000000 00010000 0001 01 5177";
        for length in 0..line.len() - 4 {
            assert_eq!(unix_row(&line.as_bytes()[..length]), None, "{length}");
        }
        assert_eq!(address("+100007F:0CEA", AF_INET), None);
        assert_eq!(address("ä00007F:0CEA", AF_INET), None);
    }

    #[test]
    fn names_of_unix_sockets_are_read() {
        let row =
            |name: &str| unix_row(format!("ffff: 02 00 00010000 0001 01 5177{name}").as_bytes()).unwrap();
        assert_eq!(row("").address, UnixAddress::Unnamed);
        assert_eq!(row(" /a path").address, UnixAddress::Path("/a path".into()));
        assert_eq!(row(" @name").address, UnixAddress::Abstract((*b"name").into()));
        assert_eq!((row("").state, row("").inode), (TcpState::Listen, 5177));
    }

    /// Such a name of one user must neither hide the sockets of others nor end the dump.
    #[test]
    fn a_name_with_newlines_and_spaces_is_kept() {
        let text = "Num\n\
                    ffff: 02 00 00010000 0001 01 1 /tmp/a \nb\n\n c\n\
                    ffff: 02 00 00010000 0001 01 2 @x\n\ny \n\
                    ffff: 02 00 00000000 0001 03 3\n";
        let mut rows = Vec::new();
        each_unix_in(text.as_bytes(), |row| rows.push((row.inode, row.address))).unwrap();
        let expected = [
            (1, UnixAddress::Path("/tmp/a \nb\n\n c".into())),
            (2, UnixAddress::Abstract((*b"x\n\ny ").into())),
            (3, UnixAddress::Unnamed),
        ];
        assert_eq!(rows, expected);
        let error = each_unix_in(format!("{text}b\u{1b}").as_bytes(), |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "line 10 is not a socket: b\\x1b");
    }

    #[test]
    fn a_line_that_is_no_socket_is_an_error_with_its_number() {
        let error = each_line(&b"header\nrow\nrow"[..], |_| None).unwrap_err();
        assert_eq!(error.to_string(), "line 2 is not a socket: row");
        let mut lines = 0;
        // An empty line is no error if it is no socket.
        each_line(&b"header\nrow\n\nrow"[..], |line| (!line.is_empty()).then(|| lines += 1)).unwrap();
        assert_eq!(lines, 2);
    }
}
