//! The calls of a scenario, executed with `sock`.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sock::{
    AF_INET, Address, AddressFamily, IPPROTO_IP, Linger, MsgFlags, Poll, SO_LINGER, SOL_SOCKET, Shutdown,
    Socket, SocketKind, UnixAddress,
};

use crate::event::HostName;
use crate::hub::Made;
use crate::lab::{Addresses, Folder};
use crate::value::{EVENTS, Value, constant};

/// Functions of a host.
pub(crate) const OF_HOST: [&str; 3] = ["socket", "socketpair", "unlink"];

/// Functions of a socket.
pub(crate) const OF_SOCKET: [&str; 29] = [
    "accept",
    "bind",
    "close",
    "connect",
    "connect_ex",
    "dup",
    "getblocking",
    "getpeername",
    "getsockname",
    "getsockopt",
    "gettimeout",
    "join_group",
    "listen",
    "poll",
    "recv",
    "recv_fds",
    "recvfrom",
    "send",
    "send_fds",
    "sendall",
    "sendmsg",
    "sendto",
    "set_inheritable",
    "setblocking",
    "setsockopt",
    "settimeout",
    "shutdown",
    "leave_group",
    "recvmsg",
];

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The system's error.
    Io(io::Error),
    /// The arguments do not fit.
    Usage(String),
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> CallError {
        CallError::Io(error)
    }
}

/// What a call needs besides its arguments.
pub(crate) struct Context {
    pub(crate) host: HostName,
    pub(crate) sock: Option<Arc<Socket>>,
    /// Sockets among the arguments, in their order.
    pub(crate) passed: Vec<Arc<Socket>>,
    pub(crate) addresses: Addresses,
    pub(crate) folder: Arc<Folder>,
    pub(crate) is_bound: bool,
}

type Result<T> = std::result::Result<T, CallError>;

fn usage<T>(text: impl Into<String>) -> Result<T> {
    Err(CallError::Usage(text.into()))
}

fn number(value: Option<&Value>, what: &str) -> Result<i64> {
    match value {
        Some(Value::Int(number)) => Ok(*number),
        Some(Value::Bool(value)) => Ok(i64::from(*value)),
        Some(Value::Names(names)) => names.iter().try_fold(0, |all, name| match constant(name) {
            Some(number) => Ok(all | number),
            None => usage(format!("{name} is not a constant of this system")),
        }),
        Some(other) => usage(format!("{what} is a number, not {other}")),
        None => usage(format!("{what} is missing")),
    }
}

fn int(value: Option<&Value>, what: &str) -> Result<i32> {
    let number = number(value, what)?;
    i32::try_from(number).or_else(|_| usage(format!("{what} {number} is too large")))
}

fn size(value: Option<&Value>) -> Result<usize> {
    let number = number(value, "the size")?;
    usize::try_from(number)
        .ok()
        .filter(|size| *size <= 64 << 20)
        .map_or_else(|| usage("the size is too large"), Ok)
}

fn bytes<'a>(value: Option<&'a Value>, what: &str) -> Result<&'a [u8]> {
    match value {
        Some(Value::Bytes(bytes)) => Ok(bytes),
        _ => usage(format!("{what} is bytes, as in b\"data\"")),
    }
}

fn flags(value: Option<&Value>) -> Result<MsgFlags> {
    Ok(match value {
        Some(value) => MsgFlags::from(int(Some(value), "the flags")?),
        None => MsgFlags::from(0),
    })
}

impl Context {
    fn address(&self, value: Option<&Value>) -> Result<Address> {
        match value {
            Some(Value::Tuple(parts)) => {
                let (Some(Value::Str(ip)), Some(Value::Int(port))) = (parts.first(), parts.get(1)) else {
                    return usage("an address is a tuple of text and number, as in (\"10.0.0.2\", 80)");
                };
                let port = u16::try_from(*port).or_else(|_| usage("a port is at most 65535"))?;
                let (ip, port) = self.addresses.real(ip, port);
                let is_v4 = self.sock.as_ref().is_none_or(|sock| sock.family() == AF_INET);
                let ip: IpAddr = match (ip.as_str(), is_v4) {
                    ("", true) => IpAddr::from([0; 4]),
                    ("", false) => IpAddr::from([0; 16]),
                    (ip, _) => {
                        ip.parse().or_else(|_| usage(format!("{ip:?} is not an address in numbers")))?
                    }
                };
                let ip = match ip {
                    // IPv6 sockets name an IPv4 address so.
                    IpAddr::V4(v4) if !is_v4 => IpAddr::V6(v4.to_ipv6_mapped()),
                    other => other,
                };
                Ok(Address::from(std::net::SocketAddr::new(ip, port)))
            }
            Some(Value::Str(path)) => Ok(Address::Unix(match path.strip_prefix('\0') {
                Some(name) => UnixAddress::Abstract(name.as_bytes().into()),
                None => UnixAddress::Path(self.path(path)?),
            })),
            _ => usage("an address is missing"),
        }
    }

    /// A relative path is in the folder of the lab.
    fn path(&self, path: &str) -> io::Result<PathBuf> {
        if path.is_empty() || path.starts_with('/') {
            return Ok(PathBuf::from(path));
        }
        Ok(self.folder.path()?.join(path))
    }

    fn shown(&self, address: &Address) -> Value {
        if let Some(path) = address.path() {
            return Value::Str(self.folder.shown(path).to_string_lossy().into_owned());
        }
        match address.to_socket_addr() {
            Some(address) => {
                let (ip, port) = self.addresses.shown(&address.ip().to_string(), address.port());
                Value::Tuple(vec![Value::Str(ip), Value::Int(port.into())])
            }
            None => Value::None,
        }
    }

    /// On plain loopback both hosts are in one namespace, so the kernel cannot know from which one
    /// a connection comes.
    fn bind_own_address(&self, sock: &Socket, destination: &Address) -> Result<()> {
        const IP_BIND_ADDRESS_NO_PORT: i32 = 24;
        let is_lab = destination.ip().is_some_and(|ip| {
            HostName::BOTH.iter().any(|host| ip.to_canonical() == self.addresses.of(*host))
        });
        if self.addresses.is_translated() && !self.is_bound && is_lab && sock.family() == AF_INET {
            sock.setsockopt(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)?;
            let own = self.addresses.of(self.host);
            sock.bind(Address::from(std::net::SocketAddr::new(own.into(), 0)))?;
        }
        Ok(())
    }
}

fn made(cx: &Context, sock: Socket) -> (Value, Made) {
    (Value::Fd(sock.fileno()), vec![(cx.host, Arc::new(sock))])
}

fn done(_: ()) -> (Value, Made) {
    (Value::Int(0), Vec::new())
}

fn count(count: usize) -> (Value, Made) {
    (Value::Int(count as i64), Vec::new())
}

fn plain(value: Value) -> (Value, Made) {
    (value, Vec::new())
}

/// The name of an error that a call returns as its value, or 0 for none.
fn errno_value(number: i32) -> Value {
    match sock::errno_name(number) {
        Some(name) => Value::Names(vec![name.to_owned()]),
        None => Value::Int(number.into()),
    }
}

/// The names of events of poll(2), or 0 for none.
fn events_of(events: sock::Events) -> Value {
    let names: Vec<_> = EVENTS
        .iter()
        .filter(|(_, event)| events & event != 0)
        .map(|(name, _)| (*name).to_owned())
        .collect();
    if names.is_empty() { Value::Int(0) } else { Value::Names(names) }
}

/// Executes a call. It may block.
pub(crate) fn perform(cx: Context, function: &str, args: &[Value]) -> Result<(Value, Made)> {
    let first = args.first();
    let second = args.get(1);
    if function == "socket" || function == "socketpair" {
        let default = if function == "socket" { "AF_INET" } else { "AF_UNIX" };
        let named = |name: &str| Value::Names(vec![name.to_owned()]);
        let family = AddressFamily::from(int(Some(first.unwrap_or(&named(default))), "the family")?);
        let kind = SocketKind::from(int(Some(second.unwrap_or(&named("SOCK_STREAM"))), "the type")?);
        let proto = args.get(2).map_or(Ok(0), |value| int(Some(value), "the protocol"))?;
        if function == "socket" {
            return Ok(made(&cx, Socket::new(family, kind, proto)?));
        }
        let (one, two) = sock::socketpair_with(family, kind, proto)?;
        let value = Value::Tuple(vec![Value::Fd(one.fileno()), Value::Fd(two.fileno())]);
        return Ok((value, vec![(cx.host, Arc::new(one)), (cx.host, Arc::new(two))]));
    }
    if function == "unlink" {
        let Some(Value::Str(path)) = first else { return usage("the path is a text, as in \"server\"") };
        return Ok(done(std::fs::remove_file(cx.path(path)?)?));
    }
    let Some(sock) = cx.sock.clone() else {
        return usage(format!("{function} is a function of a socket"));
    };
    let result = match function {
        "accept" => {
            let (connection, _) = sock.accept()?;
            made(&cx, connection)
        }
        "bind" => done(sock.bind(cx.address(first)?)?),
        "listen" => match first {
            Some(backlog) => done(sock.listen(int(Some(backlog), "the backlog")?)?),
            None => done(sock.listen(None)?),
        },
        "connect" => {
            let address = cx.address(first)?;
            cx.bind_own_address(&sock, &address)?;
            done(sock.connect(address)?)
        }
        "connect_ex" => {
            let address = cx.address(first)?;
            cx.bind_own_address(&sock, &address)?;
            plain(errno_value(sock.connect_ex(address)?))
        }
        "sendmsg" => {
            let Some(Value::List(parts)) = first else {
                return usage("the data is a list of bytes, as in [b\"head\", b\"body\"]");
            };
            let parts: Result<Vec<_>> = parts.iter().map(|part| bytes(Some(part), "each part")).collect();
            let parts: Vec<_> = parts?.into_iter().map(io::IoSlice::new).collect();
            count(sock.sendmsg(&parts, &[])?)
        }
        "getblocking" => plain(Value::Bool(sock.getblocking())),
        "gettimeout" => {
            plain(sock.gettimeout().map_or(Value::None, |timeout| Value::Float(timeout.as_secs_f64())))
        }
        "send" => count(sock.send_with_flags(bytes(first, "the data")?, flags(second)?)?),
        "sendall" => done(sock.sendall(bytes(first, "the data")?)?),
        "sendto" => {
            let address = cx.address(second)?;
            cx.bind_own_address(&sock, &address)?;
            count(sock.sendto(bytes(first, "the data")?, address)?)
        }
        "recv" => plain(Value::Bytes(sock.recv_with_flags(size(first)?, flags(second)?)?)),
        "recvfrom" => {
            let (data, address) = sock.recvfrom_with_flags(size(first)?, flags(second)?)?;
            plain(Value::Tuple(vec![Value::Bytes(data), cx.shown(&address)]))
        }
        "recvmsg" => {
            let message = sock.recvmsg(size(first)?, 0)?;
            let is_cut = message.flags.contains(sock::MSG_TRUNC);
            let flags = Value::Str(if is_cut { "MSG_TRUNC" } else { "" }.to_owned());
            plain(Value::Tuple(vec![Value::Bytes(message.data), flags, cx.shown(&message.address)]))
        }
        "shutdown" => {
            let how = match first {
                Some(Value::Names(names)) if names == &["SHUT_RD"] => Shutdown::Read,
                Some(Value::Names(names)) if names == &["SHUT_WR"] => Shutdown::Write,
                Some(Value::Names(names)) if names == &["SHUT_RDWR"] => Shutdown::Both,
                _ => return usage("the direction is SHUT_RD, SHUT_WR or SHUT_RDWR"),
            };
            done(sock.shutdown(how)?)
        }
        "setsockopt" => {
            let (level, option) = (int(first, "the level")?, int(second, "the option")?);
            match args.get(2) {
                Some(Value::Bytes(value)) => done(sock.setsockopt(level, option, &value[..])?),
                // Python: struct.pack("ii", on, seconds)
                Some(Value::Tuple(pair)) if level == SOL_SOCKET && option == SO_LINGER => {
                    let is_on = number(pair.first(), "on")? != 0;
                    let seconds = u16::try_from(number(pair.get(1), "the seconds")?).unwrap_or_default();
                    done(sock.set_linger(Linger { l_onoff: is_on, l_linger: seconds })?)
                }
                value => done(sock.setsockopt(level, option, int(value, "the value")?)?),
            }
        }
        "getsockopt" => {
            let value = sock.getsockopt(int(first, "the level")?, int(second, "the option")?)?;
            let is_error = first.zip(second).is_some_and(|(level, option)| {
                number(Some(level), "").is_ok_and(|level| level == i64::from(SOL_SOCKET))
                    && number(Some(option), "").is_ok_and(|option| option == i64::from(sock::SO_ERROR))
            });
            plain(if is_error { errno_value(value) } else { Value::Int(value.into()) })
        }
        "poll" => {
            let events = number(first.or(Some(&Value::Names(vec!["POLLIN".to_owned()]))), "the events")?;
            let timeout = match second {
                None | Some(Value::None) => None,
                Some(Value::Float(seconds)) => {
                    Some(Duration::try_from_secs_f64(*seconds).unwrap_or_default())
                }
                seconds => Some(Duration::from_secs(size(seconds)? as u64)),
            };
            let events = i16::try_from(events).or_else(|_| usage("the events are too large"))?;
            let mut set = [Poll::new(&*sock, events)];
            sock::poll(&mut set, timeout)?;
            plain(events_of(set[0].revents()))
        }
        "settimeout" => match first {
            Some(Value::None) => done(sock.settimeout(None::<Duration>)?),
            Some(Value::Float(seconds)) => done(sock.settimeout(*seconds)?),
            seconds => done(sock.settimeout(f64::from(int(seconds, "the seconds")?))?),
        },
        "setblocking" => done(sock.setblocking(number(first, "the mode")? != 0)?),
        "set_inheritable" => done(sock.set_inheritable(number(first, "the mode")? != 0)?),
        "getsockname" => plain(cx.shown(&sock.getsockname()?)),
        "getpeername" => plain(cx.shown(&sock.getpeername()?)),
        "dup" => made(&cx, sock.dup()?),
        "join_group" | "leave_group" => {
            let Some(Value::Str(group)) = first else { return usage("the group is a text") };
            let group: IpAddr = group.parse().or_else(|_| usage("the group is not an address"))?;
            match function {
                "join_group" => done(sock.join_group(group, 0)?),
                _ => done(sock.leave_group(group, 0)?),
            }
        }
        "send_fds" => {
            let data = match first {
                Some(Value::List(parts)) => bytes(parts.first(), "the data")?,
                other => bytes(other, "the data")?,
            };
            let fds: Vec<_> = cx.passed.iter().map(|sock| sock::AsFd::as_fd(&**sock)).collect();
            count(sock.send_fds(&[io::IoSlice::new(data)], &fds)?)
        }
        "recv_fds" => {
            let received = sock.recv_fds(size(first)?, size(second)?)?;
            let mut sockets: Made = Vec::new();
            for fd in received.descriptors {
                let sock = Socket::from_fd(fd, None, None, None).map_err(|error| error.error)?;
                sockets.push((cx.host, Arc::new(sock)));
            }
            let fds = sockets.iter().map(|(_, sock)| Value::Fd(sock.fileno())).collect();
            (Value::Tuple(vec![Value::Bytes(received.data), Value::List(fds)]), sockets)
        }
        other => return usage(format!("there is no function {other}")),
    };
    Ok(result)
}
