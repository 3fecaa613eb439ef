//! Calls of watched programs as text: the names, arguments and results of the calls of a scenario
//! where the call is the same, and those of the system otherwise.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::hub::Hub;
use crate::sys::calls::Call;
use crate::sys::trace::read_memory;
use crate::value::{SHOWN, Value, constant, shown_bytes};
use crate::watch::sockets::{Process, Sockets};

/// A call at its entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Described {
    /// The socket, or the host.
    pub(crate) object: String,
    pub(crate) function: &'static str,
    pub(crate) args: String,
    /// Whether it only asks whether something has happened, and is shown only if something has.
    pub(crate) is_probe: bool,
}

/// Descriptors of one call of poll(2) or select(2) that are looked at.
const DESCRIPTORS: usize = 1024;
/// Parts of a message that are looked at.
const PARTS: usize = 64;

/// What decodes the calls of one thread.
pub(crate) struct Decoder<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) sockets: &'a mut Sockets,
    pub(crate) process: Process,
}

fn int(argument: u64) -> i32 {
    argument as i32
}

/// The name of a number among the constants with one of these prefixes.
fn named(prefixes: &[&str], number: i64) -> String {
    let known = sock::constants()
        .into_iter()
        .find(|(name, known)| *known == number && prefixes.iter().any(|prefix| name.starts_with(prefix)));
    known.map_or_else(|| number.to_string(), |(name, _)| name.to_owned())
}

/// The names of the bits of a number, or `0`.
fn flags(names: &[(&str, i64)], number: i64) -> String {
    let mut rest = number;
    let mut text: Vec<String> = Vec::new();
    for (name, bit) in names {
        if *bit != 0 && rest & bit == *bit {
            text.push((*name).to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 || text.is_empty() {
        text.push(if rest == 0 { "0".to_owned() } else { format!("{rest:#x}") });
    }
    text.join(" | ")
}

fn message_flags(number: i64) -> String {
    let names: Vec<_> =
        sock::constants().into_iter().filter(|(name, _)| name.starts_with("MSG_")).collect();
    flags(&names, number)
}

const NONBLOCK: i64 = 0o4000;
const CLOEXEC: i64 = 0o2_000_000;
const KIND_FLAGS: [(&str, i64); 2] = [("SOCK_NONBLOCK", NONBLOCK), ("SOCK_CLOEXEC", CLOEXEC)];
const POLL_EVENTS: [(&str, i64); 10] = [
    ("POLLIN", 1),
    ("POLLPRI", 2),
    ("POLLOUT", 4),
    ("POLLERR", 8),
    ("POLLHUP", 0x10),
    ("POLLRDNORM", 0x40),
    ("POLLRDBAND", 0x80),
    ("POLLWRNORM", 0x100),
    ("POLLWRBAND", 0x200),
    ("POLLRDHUP", 0x2000),
];
const EPOLL_EVENTS: [(&str, i64); 9] = [
    ("EPOLLIN", 1),
    ("EPOLLPRI", 2),
    ("EPOLLOUT", 4),
    ("EPOLLERR", 8),
    ("EPOLLHUP", 0x10),
    ("EPOLLRDHUP", 0x2000),
    ("EPOLLEXCLUSIVE", 1 << 28),
    ("EPOLLONESHOT", 1 << 30),
    ("EPOLLET", 1 << 31),
];

/// Bytes of a C structure.
struct Bytes(Vec<u8>);

impl Bytes {
    fn part<const SIZE: usize>(&self, at: usize) -> Option<[u8; SIZE]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.part(at).map(u64::from_ne_bytes)
    }

    fn i32(&self, at: usize) -> Option<i32> {
        self.part(at).map(i32::from_ne_bytes)
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.part(at).map(u16::from_ne_bytes)
    }
}

/// A socket address as Python writes it.
fn address(bytes: &Bytes) -> Option<Value> {
    const UNIX: u16 = 1;
    const INET: u16 = 2;
    const INET6: u16 = 10;
    let family = bytes.u16(0)?;
    let port = || bytes.part(2).map(|port| Value::Int(u16::from_be_bytes(port).into()));
    match family {
        INET => {
            let ip = Ipv4Addr::from(bytes.part::<4>(4)?);
            Some(Value::Tuple(vec![Value::Str(ip.to_string()), port()?]))
        }
        INET6 => {
            let ip = Ipv6Addr::from(bytes.part::<16>(8)?);
            Some(Value::Tuple(vec![Value::Str(ip.to_string()), port()?]))
        }
        UNIX => {
            let path = &bytes.0[2..];
            // An abstract name begins with a zero byte.
            let end = path.iter().skip(1).position(|byte| *byte == 0).map_or(path.len(), |end| end + 1);
            Some(match path {
                [0, ..] => Value::Bytes(path.to_vec()),
                path => Value::Str(String::from_utf8_lossy(&path[..end]).into_owned()),
            })
        }
        // Ends the association of a datagram socket.
        0 => Some(Value::Names(vec!["AF_UNSPEC".to_owned()])),
        other => Some(Value::Str(format!("family {other}"))),
    }
}

/// What a message header refers to.
struct Message {
    parts: u64,
    count: usize,
    address: u64,
    address_length: u64,
    control_length: u64,
}

fn milliseconds(milliseconds: i64) -> String {
    match milliseconds {
        ..0 => "None".to_owned(),
        0 => "0".to_owned(),
        some => format!("{}", some as f64 / 1000.0),
    }
}

impl Decoder<'_> {
    fn name(&mut self, descriptor: u64) -> Option<String> {
        self.sockets.name(self.hub, self.process, int(descriptor))
    }

    fn memory(&self, at: u64, length: usize) -> Bytes {
        Bytes(if at == 0 { Vec::new() } else { read_memory(self.process.thread, at, length) })
    }

    fn address(&self, at: u64, length: u64) -> Option<String> {
        address(&self.memory(at, length.min(128) as usize)).map(|address| address.to_string())
    }

    /// An address that the kernel has written, with its length at `length`.
    fn returned_address(&self, at: u64, length: u64) -> Option<String> {
        let length = self.memory(length, 4).i32(0).filter(|length| *length > 0)?;
        self.address(at, length as u64)
    }

    fn bytes(&self, at: u64, length: u64) -> String {
        self.beginning(at, length, length)
    }

    /// The first bytes of data that a buffer has room for.
    fn beginning(&self, at: u64, room: u64, length: u64) -> String {
        shown_bytes(&self.memory(at, room.min(SHOWN as u64) as usize).0, length as usize)
    }

    /// Whether a call throws data away instead of writing it into its buffer.
    fn discards(&self, descriptor: u64, flags: u64) -> bool {
        const PEEK: u64 = 2;
        const TRUNC: u64 = 0x20;
        flags & TRUNC != 0 && flags & PEEK == 0 && self.sockets.is_stream(self.process, int(descriptor))
    }

    /// The bytes of a list of buffers. `limit` is how many of them count.
    fn parts(&self, at: u64, count: usize, limit: Option<u64>) -> String {
        let list = self.memory(at, count.min(PARTS) * 16);
        let mut data = Vec::new();
        let mut total = 0_u64;
        for part in 0..count.min(PARTS) {
            let (Some(address), Some(length)) = (list.u64(part * 16), list.u64(part * 16 + 8)) else {
                break;
            };
            let left = limit.map_or(length, |limit| length.min(limit.saturating_sub(total)));
            let wanted = left.min((SHOWN - data.len().min(SHOWN)) as u64);
            data.extend(self.memory(address, wanted as usize).0);
            total = total.saturating_add(left);
        }
        data.truncate(SHOWN);
        shown_bytes(&data, total as usize)
    }

    /// How many bytes a list of buffers has room for.
    fn room(&self, at: u64, count: usize) -> u64 {
        let list = self.memory(at, count.min(PARTS) * 16);
        (0..count.min(PARTS)).filter_map(|part| list.u64(part * 16 + 8)).fold(0, u64::saturating_add)
    }

    fn message(&self, at: u64) -> Option<Message> {
        let head = self.memory(at, 56);
        Some(Message {
            address: head.u64(0)?,
            address_length: u64::from(head.u64(8)? as u32),
            parts: head.u64(16)?,
            count: usize::try_from(head.u64(24)?).ok()?,
            control_length: head.u64(40)?,
        })
    }

    fn timespec(&self, at: u64) -> String {
        match (at, self.memory(at, 16)) {
            (0, _) => "None".to_owned(),
            (_, time) => match (time.u64(0), time.u64(8)) {
                (Some(seconds), Some(nanoseconds)) => {
                    format!("{}", seconds as f64 + nanoseconds as f64 / 1e9)
                }
                _ => "?".to_owned(),
            },
        }
    }

    /// Decodes a call at its entry. `None` if it does not concern a socket that is shown.
    pub(crate) fn entry(&mut self, call: Call, args: &[u64; 6]) -> Option<Described> {
        let [first, second, third, fourth, fifth, _] = *args;
        let host = self.process.host.to_string();
        let mut function = call.name();
        let mut is_probe = false;
        let (object, args) = match call {
            Call::Socket | Call::Socketpair => {
                if !self.sockets.shows(first) {
                    return None;
                }
                let kind = second as i64;
                let mut text = format!("{}, ", named(&["AF_"], first as i64));
                text += &named(&["SOCK_"], kind & 0xf);
                if kind & !0xf != 0 {
                    text += &format!(" | {}", flags(&KIND_FLAGS, kind & !0xf));
                }
                if third != 0 {
                    text += &format!(", {}", named(&["IPPROTO_"], third as i64));
                }
                (host, text)
            }
            Call::Bind | Call::Connect => {
                let name = self.name(first)?;
                (name, self.address(second, third).unwrap_or_else(|| "?".to_owned()))
            }
            Call::Listen => (self.name(first)?, int(second).to_string()),
            Call::Accept | Call::Getsockname | Call::Getpeername | Call::Close | Call::Dup => {
                (self.name(first)?, String::new())
            }
            Call::Accept4 => {
                let text = if fourth == 0 { String::new() } else { flags(&KIND_FLAGS, fourth as i64) };
                (self.name(first)?, text)
            }
            Call::Shutdown => (self.name(first)?, named(&["SHUT_"], int(second).into())),
            Call::Setsockopt => {
                let (level, option) = option_names(second, third);
                let value = match (&*option, self.memory(fourth, fifth.min(64) as usize)) {
                    ("SO_LINGER", value) if fifth == 8 => {
                        format!("({}, {})", value.i32(0)?, value.i32(4)?)
                    }
                    (_, value) if fifth == 4 => value.i32(0)?.to_string(),
                    (_, value) => shown_bytes(&value.0, fifth as usize),
                };
                (self.name(first)?, format!("{level}, {option}, {value}"))
            }
            Call::Getsockopt => {
                let (level, option) = option_names(second, third);
                (self.name(first)?, format!("{level}, {option}"))
            }
            Call::Sendto => {
                let name = self.name(first)?;
                let mut text = self.bytes(second, third);
                if fourth != 0 {
                    text += &format!(", {}", message_flags(fourth as i64));
                }
                match self.address(fifth, args[5]) {
                    Some(address) => text += &format!(", {address}"),
                    None => function = "send",
                }
                (name, text)
            }
            Call::Recvfrom => {
                if fifth == 0 {
                    function = "recv";
                }
                let mut text = third.to_string();
                if fourth != 0 {
                    text += &format!(", {}", message_flags(fourth as i64));
                }
                (self.name(first)?, text)
            }
            Call::Sendmsg => {
                let name = self.name(first)?;
                let message = self.message(second)?;
                let mut text = self.parts(message.parts, message.count, None);
                if third != 0 {
                    text += &format!(", {}", message_flags(third as i64));
                }
                if let Some(address) = self.address(message.address, message.address_length) {
                    text += &format!(", {address}");
                }
                if message.control_length > 0 {
                    text += &format!(", {} bytes of control data", message.control_length);
                }
                (name, text)
            }
            Call::Recvmsg => {
                let name = self.name(first)?;
                let message = self.message(second)?;
                let mut text = self.room(message.parts, message.count).to_string();
                if third != 0 {
                    text += &format!(", {}", message_flags(third as i64));
                }
                (name, text)
            }
            Call::Sendmmsg | Call::Recvmmsg => (self.name(first)?, format!("{third} messages")),
            Call::Read => (self.name(first)?, third.to_string()),
            Call::Write => (self.name(first)?, self.bytes(second, third)),
            Call::Readv => (self.name(first)?, self.room(second, third as usize).to_string()),
            Call::Writev => (self.name(first)?, self.parts(second, third as usize, None)),
            Call::Sendfile => (self.name(first)?, format!("fd {}, {fourth}", int(second))),
            Call::Splice => match (self.name(first), self.name(third)) {
                (Some(name), None) => (name, format!("to fd {}, {fifth}", int(third))),
                (None, Some(name)) => (name, format!("from fd {}, {fifth}", int(first))),
                (Some(name), Some(other)) => (name, format!("to {other}, {fifth}")),
                (None, None) => return None,
            },
            #[cfg(target_arch = "x86_64")]
            Call::Dup2 => (self.name(first)?, int(second).to_string()),
            Call::Dup3 => (self.name(first)?, int(second).to_string()),
            Call::Fcntl => {
                let text = match second {
                    0 => format!("F_DUPFD, {third}"),
                    1030 => format!("F_DUPFD_CLOEXEC, {third}"),
                    4 => format!(
                        "F_SETFL, {}",
                        flags(&[("O_RDWR", 2), ("O_NONBLOCK", NONBLOCK)], third as i64)
                    ),
                    _ => return None,
                };
                (self.name(first)?, text)
            }
            Call::Ioctl => {
                let text = match second {
                    0x5421 => format!("FIONBIO, {}", self.memory(third, 4).i32(0)?),
                    0x541b => "FIONREAD".to_owned(),
                    _ => return None,
                };
                (self.name(first)?, text)
            }
            #[cfg(target_arch = "x86_64")]
            Call::Poll => {
                is_probe = int(third) == 0;
                self.waits(&self.polled(first, second, false), &milliseconds(int(third).into()))?
            }
            Call::Ppoll => {
                let time = self.timespec(third);
                is_probe = time == "0";
                self.waits(&self.polled(first, second, false), &time)?
            }
            #[cfg(target_arch = "x86_64")]
            Call::Select => {
                let time = match (fifth, self.memory(fifth, 16)) {
                    (0, _) => "None".to_owned(),
                    (_, time) => format!("{}", time.u64(0)? as f64 + time.u64(8)? as f64 / 1e6),
                };
                is_probe = time == "0";
                self.waits(&self.selected(first, [second, third, fourth]), &time)?
            }
            Call::Pselect6 => {
                let time = self.timespec(fifth);
                is_probe = time == "0";
                self.waits(&self.selected(first, [second, third, fourth]), &time)?
            }
            Call::EpollCtl => {
                let action = match second {
                    1 => "EPOLL_CTL_ADD",
                    2 => "EPOLL_CTL_DEL",
                    3 => "EPOLL_CTL_MOD",
                    _ => return None,
                };
                let name = self.name(third)?;
                let events = self.memory(fourth, 4).i32(0).filter(|_| second != 2);
                let events =
                    events.map(|events| format!(", {}", flags(&EPOLL_EVENTS, i64::from(events as u32))));
                (name, format!("{action}{}", events.unwrap_or_default()))
            }
            #[cfg(target_arch = "x86_64")]
            Call::EpollWait => {
                is_probe = int(fourth) == 0;
                self.waits_epoll(first, &milliseconds(int(fourth).into()))?
            }
            Call::EpollPwait => {
                is_probe = int(fourth) == 0;
                self.waits_epoll(first, &milliseconds(int(fourth).into()))?
            }
            Call::EpollPwait2 => {
                let time = self.timespec(fourth);
                is_probe = time == "0";
                self.waits_epoll(first, &time)?
            }
            Call::Restart | Call::IoUring => return None,
        };
        Some(Described { object, function, args, is_probe })
    }

    /// The descriptors of poll(2) with the events that they wait for, or that have happened.
    fn polled(&self, at: u64, count: u64, is_result: bool) -> Vec<(i32, i64)> {
        let count = (count as usize).min(DESCRIPTORS);
        let set = self.memory(at, count * 8);
        let entry = |entry: usize| {
            let events = set.u16(entry * 8 + if is_result { 6 } else { 4 })?;
            Some((set.i32(entry * 8)?, i64::from(events)))
        };
        (0..count).filter_map(entry).filter(|(descriptor, _)| *descriptor >= 0).collect()
    }

    /// The descriptors of select(2), as events of poll(2).
    fn selected(&self, count: u64, sets: [u64; 3]) -> Vec<(i32, i64)> {
        let count = (count as usize).min(DESCRIPTORS);
        let sets = sets.map(|at| self.memory(at, count.div_ceil(64) * 8).0);
        let descriptor = |descriptor: usize| {
            let has = |set: &Vec<u8>| {
                set.get(descriptor / 8).is_some_and(|byte| byte & (1 << (descriptor % 8)) != 0)
            };
            let events =
                [1, 4, 2].into_iter().zip(&sets).filter(|(_, set)| has(set)).map(|(event, _)| event);
            (descriptor as i32, events.sum())
        };
        (0..count).map(descriptor).filter(|(_, events)| *events != 0).collect()
    }

    /// A wait for several descriptors. Those that are no sockets are left out.
    fn waits(&mut self, set: &[(i32, i64)], time: &str) -> Option<(String, String)> {
        let mut sockets = Vec::new();
        for (descriptor, events) in set {
            let name = self.sockets.name(self.hub, self.process, *descriptor);
            sockets.extend(name.map(|name| (name, flags(&POLL_EVENTS, *events))));
        }
        match &sockets[..] {
            [] => None,
            [(name, events)] => Some((name.clone(), format!("{events}, {time}"))),
            sockets => {
                let list: Vec<_> =
                    sockets.iter().map(|(name, events)| format!("{name} {events}")).collect();
                Some((self.process.host.to_string(), format!("[{}], {time}", list.join(", "))))
            }
        }
    }

    fn waits_epoll(&mut self, epoll: u64, time: &str) -> Option<(String, String)> {
        let sockets = self.sockets.of_epoll(self.hub, self.process, int(epoll));
        let names: Vec<_> = sockets.into_iter().map(|(name, _)| name).collect();
        match &names[..] {
            [] => None,
            [name] => Some((name.clone(), time.to_owned())),
            names => Some((self.process.host.to_string(), format!("[{}], {time}", names.join(", ")))),
        }
    }

    /// Which descriptors are ready.
    fn ready(&mut self, set: &[(i32, i64)], count: i64) -> String {
        let mut text = Vec::new();
        for (descriptor, events) in set.iter().filter(|(_, events)| *events != 0) {
            let name = self.sockets.name(self.hub, self.process, *descriptor);
            text.extend(name.map(|name| format!("{name} {}", flags(&POLL_EVENTS, *events))));
        }
        if text.is_empty() { count.to_string() } else { text.join(", ") }
    }

    /// Decodes the result of a call that has succeeded.
    pub(crate) fn exit(&mut self, call: Call, args: &[u64; 6], result: i64) -> String {
        let [first, second, third, fourth, fifth, sixth] = *args;
        let count = result.unsigned_abs();
        let text = match call {
            Call::Socket => self.name(count).map(|name| format!("{name} (fd {result})")),
            Call::Socketpair => {
                let pair = self.memory(fourth, 8);
                let mut end = |at| {
                    let descriptor = pair.i32(at)?;
                    let name = self.name(descriptor as u64)?;
                    Some(format!("{name} (fd {descriptor})"))
                };
                end(0).zip(end(4)).map(|(one, two)| format!("{one}, {two}"))
            }
            Call::Accept | Call::Accept4 => self.name(count).map(|name| {
                let peer = self.returned_address(second, third);
                let peer = peer.map(|peer| format!(" from {peer}")).unwrap_or_default();
                format!("{name} (fd {result}){peer}")
            }),
            Call::Getsockname | Call::Getpeername => self.returned_address(second, third),
            Call::Getsockopt => {
                let length = self.memory(fifth, 4).i32(0).unwrap_or_default();
                let value = self.memory(fourth, length.clamp(0, 64) as usize);
                let is_error = option_names(second, third).1 == "SO_ERROR";
                match value.i32(0) {
                    Some(number) if is_error && number != 0 => sock::errno_name(number).map(str::to_owned),
                    Some(number) if length == 4 => Some(number.to_string()),
                    _ => Some(shown_bytes(&value.0, length.max(0) as usize)),
                }
            }
            Call::Read => Some(self.bytes(second, count)),
            Call::Recvfrom | Call::Recvmsg
                if self.discards(first, if call == Call::Recvmsg { third } else { fourth }) =>
            {
                Some(count.to_string())
            }
            Call::Recvfrom => {
                // With MSG_TRUNC the result is the length of the whole datagram.
                let data = self.beginning(second, count.min(third), count);
                let peer = self.returned_address(fifth, sixth).filter(|_| fifth != 0);
                Some(match peer {
                    Some(peer) => format!("({data}, {peer})"),
                    None => data,
                })
            }
            Call::Readv => Some(self.parts(second, third as usize, Some(count))),
            Call::Recvmsg => self.message(second).map(|message| {
                let data = self.parts(message.parts, message.count, Some(count));
                match self.address(message.address, message.address_length).filter(|_| message.address != 0)
                {
                    Some(peer) => format!("({data}, {peer})"),
                    None => data,
                }
            }),
            Call::Dup | Call::Dup3 => Some(format!("fd {result}")),
            #[cfg(target_arch = "x86_64")]
            Call::Dup2 => Some(format!("fd {result}")),
            Call::Fcntl if second != 4 => Some(format!("fd {result}")),
            Call::Ioctl if second == 0x541b => self.memory(third, 4).i32(0).map(|count| count.to_string()),
            #[cfg(target_arch = "x86_64")]
            Call::Poll => Some(self.ready(&self.polled(first, second, true), result)),
            Call::Ppoll => Some(self.ready(&self.polled(first, second, true), result)),
            #[cfg(target_arch = "x86_64")]
            Call::Select if result > 0 => {
                Some(self.ready(&self.selected(first, [second, third, fourth]), result))
            }
            Call::Pselect6 if result > 0 => {
                Some(self.ready(&self.selected(first, [second, third, fourth]), result))
            }
            #[cfg(target_arch = "x86_64")]
            Call::EpollWait => Some(self.happened(first, second, result)),
            Call::EpollPwait | Call::EpollPwait2 => Some(self.happened(first, second, result)),
            _ => None,
        };
        text.unwrap_or_else(|| result.to_string())
    }

    /// The events that epoll_wait(2) has returned.
    fn happened(&mut self, epoll: u64, at: u64, count: i64) -> String {
        // struct epoll_event is packed on x86-64 only.
        const SIZE: usize = if cfg!(target_arch = "x86_64") { 12 } else { 16 };
        let sockets = self.sockets.of_epoll(self.hub, self.process, int(epoll));
        let number = (count.max(0) as usize).min(DESCRIPTORS);
        let list = self.memory(at, number * SIZE);
        let mut text = Vec::new();
        for event in 0..number {
            let events = list.i32(event * SIZE).map(|events| i64::from(events as u32));
            let (Some(events), Some(data)) = (events, list.u64(event * SIZE + SIZE - 8)) else { break };
            let name = sockets.iter().find(|(_, known)| *known == data).map(|(name, _)| name);
            text.extend(name.map(|name| format!("{name} {}", flags(&EPOLL_EVENTS, events))));
        }
        if text.is_empty() { count.to_string() } else { text.join(", ") }
    }
}

/// The names of an option and of its level.
fn option_names(level: u64, option: u64) -> (String, String) {
    let is = |name: &str| constant(name) == Some(int(level).into());
    let prefix = match () {
        () if is("SOL_SOCKET") => return ("SOL_SOCKET".to_owned(), named(&["SO_"], int(option).into())),
        () if is("IPPROTO_TCP") => "TCP_",
        () if is("IPPROTO_UDP") => "UDP_",
        () if is("IPPROTO_IPV6") => "IPV6_",
        () if is("IPPROTO_IP") => "IP_",
        () => return (int(level).to_string(), int(option).to_string()),
    };
    (named(&["IPPROTO_"], int(level).into()), named(&[prefix], int(option).into()))
}
