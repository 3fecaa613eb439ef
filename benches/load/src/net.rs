//! Addresses, and connections to them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::socket::sockopt::IpBindAddressNoPort;
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

/// Time after which a server that does not respond counts as hung.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(crate) enum Target {
    Inet(SocketAddrV4),
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        if text.starts_with('/') {
            return Ok(Target::Unix(text.into()));
        }
        let address: SocketAddrV4 =
            text.parse().map_err(|_| format!("{text} is neither 127.0.0.1:PORT nor /PATH"))?;
        if !address.ip().is_loopback() {
            return Err(format!("{address} is not on this machine: only loopback addresses are allowed"));
        }
        Ok(Target::Inet(address))
    }
}

impl Target {
    pub(crate) fn is_inet(&self) -> bool {
        matches!(self, Target::Inet(_))
    }

    fn address(&self) -> io::Result<SockAddr> {
        match self {
            Target::Inet(address) => Ok(SockAddr::from(SocketAddr::V4(*address))),
            Target::Unix(path) => SockAddr::unix(path),
        }
    }

    /// Connects from `127.0.0.source`. A few connections share each source address, because
    /// an address has only 28,000 ports, and each stays in TIME_WAIT for a minute.
    pub(crate) fn connect(&self, kind: Type, source: u8) -> io::Result<Socket> {
        let domain = if self.is_inet() { Domain::IPV4 } else { Domain::UNIX };
        let socket = Socket::new(domain, kind, None)?;
        if self.is_inet() && source > 1 {
            nix::sys::socket::setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0)).into())?;
        }
        // A Unix listener with a full queue refuses immediately.
        let address = self.address()?;
        for _ in 0..2000 {
            match socket.connect(&address) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_micros(100));
                }
                connected => return connected.map(|()| socket),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the listener's queue stays full"))
    }

    /// Returns a connection with TCP_NODELAY and a receive timeout.
    pub(crate) fn open(&self, source: u8) -> io::Result<Socket> {
        let socket = self.connect(Type::STREAM, source)?;
        if self.is_inet() {
            socket.set_tcp_nodelay(true)?;
        }
        socket.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        Ok(socket)
    }
}

/// Returns the last byte of one of 16 source addresses, starting with 127.0.0.2.
pub(crate) fn source(number: usize) -> u8 {
    2 + (number % 16) as u8
}

pub(crate) fn allow_many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // An insufficient limit is reported when descriptors run out.
    let _ = setrlimit(Resource::Nofile, limit);
}

pub(crate) fn failure(text: String) -> io::Error {
    io::Error::other(text)
}
