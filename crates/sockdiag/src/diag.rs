//! Questions to the kernel.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use sock::{
    AF_INET, AF_INET6, AF_UNIX, Address, SO_BINDTOIFINDEX, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, Socket,
    TcpState, errno, errno_name,
};

use crate::error::with_context;
use crate::filter::{Filter, UnixFilter};
use crate::netlink::{Dumped, Netlink};
use crate::row::{self, Protocol, Row, SocketId, no_peer};
use crate::unix::{self, UnixRow};
use crate::{procfs, request};

/// How often a dump is made that the kernel reports as interrupted.
const ATTEMPTS: u32 = 5;

/// The kernel's tables of sockets, in the network namespace of the thread that made it.
///
/// A `Diag` is a netlink socket with a buffer of 32 KiB, or the files of `/proc/net`. It needs no
/// privilege: every user sees the sockets of all users.
///
/// # Examples
///
/// ```
/// use sock::TcpState;
/// use sockdiag::{Diag, Filter};
///
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let mut diag = Diag::new()?;
/// for row in diag.tcp(&Filter::new().states([TcpState::Listen]))? {
///     println!("{} listens, inode {}", row.local, row.inode);
/// }
/// # assert_eq!(diag.of(&server)?.unwrap().state, TcpState::Listen);
/// # std::io::Result::Ok(())
/// ```
pub struct Diag {
    /// `None` if there are only files.
    netlink: Option<Netlink>,
    /// Whether the files may be read where netlink has no answer.
    files: bool,
}

/// Where a [`Diag`] gets its answers.
///
/// # Examples
///
/// ```
/// use sockdiag::{Diag, Source};
///
/// let has_cookies = Diag::new()?.source() == Source::Netlink;
/// println!("rows have cookies: {has_cookies}");
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// Netlink: every field.
    Netlink,
    /// The files of `/proc/net`: fewer fields, no `destroy`.
    Procfs,
}

impl Diag {
    /// Opens a netlink socket, or uses the files of `/proc/net` where there is none, for example in
    /// a sandbox. If the kernel has no module for a protocol, the files are read for that protocol.
    ///
    /// # Errors
    ///
    /// Returns an error if there is neither netlink nor `/proc/net`. It names both reasons.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockdiag::{Diag, Source};
    ///
    /// let diag = Diag::new()?;
    /// if diag.source() == Source::Procfs {
    ///     eprintln!("cookies and queue limits are missing");
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new() -> io::Result<Diag> {
        match Netlink::open() {
            Ok(netlink) => Ok(Diag { netlink: Some(netlink), files: true }),
            Err(no_netlink) => match Diag::procfs() {
                Ok(diag) => Ok(diag),
                Err(no_files) => {
                    let text = format!(
                        "cannot read the system's sockets: {no_files}; cannot open a netlink socket"
                    );
                    Err(with_context(text, no_netlink))
                }
            },
        }
    }

    /// Opens a netlink socket.
    ///
    /// # Errors
    ///
    /// Returns an error if the system has none, or refuses it.
    ///
    /// # Examples
    ///
    /// ```
    /// let diag = sockdiag::Diag::netlink()?;
    /// assert_eq!(diag.source(), sockdiag::Source::Netlink);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn netlink() -> io::Result<Diag> {
        let netlink =
            Netlink::open().map_err(|error| with_context("cannot open a netlink socket", error))?;
        Ok(Diag { netlink: Some(netlink), files: false })
    }

    /// Uses the files of `/proc/net` only.
    ///
    /// The kernel writes a file in pieces. Where sockets come and go meanwhile, a dump may miss a
    /// socket, and [`each_tcp`](Diag::each_tcp) and [`each_udp`](Diag::each_udp) may have it more
    /// than once. Nothing reports that. It does not escape the names of Unix sockets either, so a
    /// name with a newline can contain what looks like another socket. Netlink has neither fault.
    ///
    /// # Errors
    ///
    /// Returns an error if they cannot be read.
    ///
    /// # Examples
    ///
    /// ```
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let row = sockdiag::Diag::procfs()?.of(&server)?.unwrap();
    /// assert_eq!((row.state, row.cookie), (sock::TcpState::Listen, None));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn procfs() -> io::Result<Diag> {
        procfs::check()?;
        Ok(Diag { netlink: None, files: true })
    }

    /// Returns the source of the answers: netlink or `/proc/net`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockdiag::{Diag, Source};
    ///
    /// assert_eq!(Diag::procfs()?.source(), Source::Procfs);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn source(&self) -> Source {
        if self.netlink.is_some() { Source::Netlink } else { Source::Procfs }
    }

    /// Returns the TCP sockets that match a filter, IPv4 before IPv6.
    ///
    /// A dump that the kernel reports as interrupted is repeated, five times at most.
    ///
    /// # Errors
    ///
    /// Returns an error if the filter is invalid (`InvalidInput`), if every attempt was interrupted
    /// (`ResourceBusy`), or if the kernel returns one.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockdiag::{Diag, Filter};
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let address = server.getsockname()?;
    /// let client = sock::create_connection(("127.0.0.1", address.port().unwrap()))?;
    /// client.sendall(b"twelve bytes")?;
    ///
    /// let waiting = Filter::new().local_port(address.port().unwrap()).peer_address([127, 0, 0, 1]);
    /// let rows = Diag::new()?.tcp(&waiting)?;
    /// // The server's end, which nothing has accepted: it has no inode yet.
    /// assert_eq!((rows[0].recv_queue, rows[0].inode), (12, 0));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn tcp(&mut self, filter: &Filter) -> io::Result<Vec<Row>> {
        repeat(|rows| self.each(Protocol::Tcp, filter, &mut |row| rows.push(row))).map(without_doubles)
    }

    /// Returns the UDP sockets that match a filter, IPv4 before IPv6.
    ///
    /// # Errors
    ///
    /// Returns an error if [`tcp`](Diag::tcp) would return one.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_DGRAM, Socket};
    /// use sockdiag::{Diag, Filter};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// let port = sock.getsockname()?.port().unwrap();
    /// assert_eq!(Diag::new()?.udp(&Filter::new().local_port(port))?[0].cookie, Some(sock.cookie()?));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn udp(&mut self, filter: &Filter) -> io::Result<Vec<Row>> {
        repeat(|rows| self.each(Protocol::Udp, filter, &mut |row| rows.push(row))).map(without_doubles)
    }

    /// Returns the Unix sockets that match a filter.
    ///
    /// # Errors
    ///
    /// Returns an error if [`tcp`](Diag::tcp) would return one.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockdiag::{Diag, UnixFilter};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let rows = Diag::new()?.unix(&UnixFilter::new().kind(sock::SOCK_STREAM))?;
    /// let row = rows.iter().find(|row| row.cookie == Some(ours.cookie().unwrap())).unwrap();
    /// let peer = rows.iter().find(|other| Some(other.inode) == row.peer).unwrap();
    /// assert_eq!(peer.cookie, Some(theirs.cookie()?));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn unix(&mut self, filter: &UnixFilter) -> io::Result<Vec<UnixRow>> {
        repeat(|rows| self.each_row_of_unix(filter, &mut |row| rows.push(row)))
    }

    /// Calls `each` with every TCP socket that matches a filter. Memory does not grow with the number
    /// of sockets.
    ///
    /// # Errors
    ///
    /// Returns an error if [`tcp`](Diag::tcp) would return one, and also after the first
    /// interruption (`ResourceBusy`), because the dump is not repeated. `each` may then have missed
    /// sockets, or seen them twice.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut bytes = 0;
    /// sockdiag::Diag::new()?.each_tcp(&sockdiag::Filter::new(), |row| bytes += u64::from(row.recv_queue))?;
    /// println!("{bytes} bytes were not read");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn each_tcp(&mut self, filter: &Filter, mut each: impl FnMut(Row)) -> io::Result<()> {
        complete(self.each(Protocol::Tcp, filter, &mut each)?)
    }

    /// Calls `each` with every UDP socket that matches a filter.
    ///
    /// # Errors
    ///
    /// Returns an error if [`each_tcp`](Diag::each_tcp) would return one.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_DGRAM, Socket};
    /// use sockdiag::{Diag, Filter};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// let filter = Filter::new().local_port(sock.getsockname()?.port().unwrap());
    /// let mut count = 0;
    /// Diag::new()?.each_udp(&filter, |_row| count += 1)?;
    /// assert_eq!(count, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn each_udp(&mut self, filter: &Filter, mut each: impl FnMut(Row)) -> io::Result<()> {
        complete(self.each(Protocol::Udp, filter, &mut each)?)
    }

    /// Calls `each` with every Unix socket that matches a filter.
    ///
    /// # Errors
    ///
    /// Returns an error if [`each_tcp`](Diag::each_tcp) would return one.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockdiag::{Diag, UnixFilter};
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let cookie = ours.cookie()?;
    /// let mut found = false;
    /// Diag::new()?.each_unix(&UnixFilter::new(), |row| found |= row.cookie == Some(cookie))?;
    /// assert!(found);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn each_unix(&mut self, filter: &UnixFilter, mut each: impl FnMut(UnixRow)) -> io::Result<()> {
        complete(self.each_row_of_unix(filter, &mut each)?)
    }

    /// Returns the TCP or UDP socket with this identity. `None` if there is none.
    ///
    /// The kernel finds it in a few microseconds, however many sockets there are. It does not find
    /// a TCP socket that is bound and neither connected nor listening: [`of`](Diag::of) does. If
    /// the [`source`](Diag::source) is `/proc/net`, the cookie is not compared.
    ///
    /// # Errors
    ///
    /// Returns an error if the two addresses are of different families (`InvalidInput`), or if the
    /// kernel returns one.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockdiag::{Diag, Protocol, SocketId};
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let [local, peer] = [client.getsockname()?, client.getpeername()?].map(|a| a.to_socket_addr().unwrap());
    /// let row = Diag::new()?.one(&SocketId::new(Protocol::Tcp, local, peer))?.unwrap();
    /// assert_eq!(row.cookie, Some(client.cookie()?));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn one(&mut self, id: &SocketId) -> io::Result<Option<Row>> {
        if id.local.is_ipv4() != id.peer.is_ipv4() {
            return Err(invalid(format!("{} and {} are of different families", id.local, id.peer)));
        }
        let Some(netlink) = &mut self.netlink else {
            return self.search(id.protocol, &by_id(id), |row| row.is(id));
        };
        // udp_dump_one of the kernel takes the addresses the other way round.
        let request = request::inet_one(id, id.protocol == Protocol::Udp);
        let answer = netlink.one(&request, |payload| row::parse(payload, id.protocol));
        match unless_missing(answer)? {
            // A search by address falls back to the listener, and to an unconnected UDP socket.
            Some(row) if row.is(id) => Ok(Some(row)),
            // Also where the kernel has no module for the protocol.
            None if self.files && self.lacks(id.protocol)? => {
                self.search(id.protocol, &by_id(id), |row| row.is(id))
            }
            _ => Ok(None),
        }
    }

    /// Returns the row of a TCP or UDP socket of this process. `None` if the kernel's tables do not
    /// have it, because it was never bound or connected, or its connection is over.
    ///
    /// The kernel assigns a cookie at the first request for it. A socket enters TIME-WAIT with the
    /// cookie that it has then, so it is found in TIME-WAIT only if `of` or
    /// [`cookie`](Socket::cookie) was called before.
    ///
    /// # Errors
    ///
    /// Returns an error if it is not a TCP or UDP socket (`InvalidInput`), or if the kernel returns
    /// one.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_STREAM, Socket, TcpState};
    ///
    /// let mut diag = sockdiag::Diag::new()?;
    /// let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    /// assert_eq!(diag.of(&sock)?, None);
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.listen(5)?;
    /// let queue = diag.of(&sock)?.unwrap().accept_queue.unwrap();
    /// assert_eq!((queue.waiting, queue.limit), (0, Some(5)));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn of(&mut self, sock: &Socket) -> io::Result<Option<Row>> {
        let protocol = protocol_of(sock)?;
        let local = sock.getsockname()?.to_socket_addr();
        let Some(local) = local.filter(|local| local.port() != 0) else {
            return Ok(None);
        };
        // There is none while it connects, and after a reset.
        let peer = sock.getpeername().ok().as_ref().and_then(Address::to_socket_addr);
        let interface = sock.getsockopt(SOL_SOCKET, SO_BINDTOIFINDEX).unwrap_or(0) as u32;
        let cookie = sock.cookie().ok();
        let id = SocketId { protocol, local, peer: peer.unwrap_or(no_peer(local)), interface, cookie };
        let found = self.one(&id)?;
        if found.is_some() || cookie.is_none() {
            return Ok(found);
        }
        let filter = Filter::new().states(every_state()).local_port(local.port());
        if self.netlink.is_some() {
            return self.search(protocol, &filter, |row| row.cookie == cookie);
        }
        let inode = inode_of(sock)?;
        self.search(protocol, &filter, |row| row.inode == inode)
    }

    /// Returns the Unix socket with this inode. `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns an error if the kernel returns one.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut diag = sockdiag::Diag::new()?;
    /// let (ours, theirs) = sock::socketpair()?;
    /// let peer = diag.unix_of(&ours)?.unwrap().peer.unwrap();
    /// assert_eq!(diag.unix_one(peer)?.unwrap().cookie, Some(theirs.cookie()?));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn unix_one(&mut self, inode: u64) -> io::Result<Option<UnixRow>> {
        self.unix_by(inode, None)
    }

    /// Returns the row of a Unix socket of this process.
    ///
    /// # Errors
    ///
    /// Returns an error if it is not a Unix socket (`InvalidInput`), or if the kernel returns one.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"twelve bytes")?;
    /// assert_eq!(sockdiag::Diag::new()?.unix_of(&ours)?.unwrap().recv_queue, Some(12));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn unix_of(&mut self, sock: &Socket) -> io::Result<Option<UnixRow>> {
        if sock.family() != AF_UNIX {
            return Err(invalid(format!("a socket of {} is not a Unix socket", sock.family())));
        }
        self.unix_by(inode_of(sock)?, sock.cookie().ok())
    }

    /// Destroys a TCP or UDP socket, whichever process it belongs to. Its calls fail with
    /// `ECONNABORTED`, and a TCP peer is sent a RST.
    ///
    /// # Errors
    ///
    /// Returns an error if the process does not have `CAP_NET_ADMIN` in the user namespace that
    /// owns its network namespace (`PermissionDenied`), if there is no such socket (`NotFound`), if
    /// the kernel was built without `CONFIG_INET_DIAG_DESTROY`, or if the
    /// [`source`](Diag::source) is `/proc/net` (`Unsupported`).
    ///
    /// # Examples
    ///
    /// ```
    /// let mut diag = sockdiag::Diag::new()?;
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let row = diag.of(&client)?.unwrap();
    /// match diag.destroy(&row.id()) {
    ///     Ok(()) => assert_eq!(client.recv(1).unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted),
    ///     Err(error) => eprintln!("{error}"), // CAP_NET_ADMIN is missing
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn destroy(&mut self, id: &SocketId) -> io::Result<()> {
        let Some(netlink) = &mut self.netlink else {
            let text = "/proc/net can destroy no socket: that needs a netlink socket";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        };
        netlink.destroy(&request::inet_one(id, false)).map_err(|error| {
            let reason = match errno(&error).and_then(errno_name) {
                Some("EPERM") => " without CAP_NET_ADMIN",
                Some("EOPNOTSUPP") => " on a kernel without CONFIG_INET_DIAG_DESTROY",
                Some("ENOENT" | "ESTALE") => ", which does not exist",
                _ => "",
            };
            let text = format!("cannot destroy the socket {} -> {}{reason}", id.local, id.peer);
            match error.kind() {
                io::ErrorKind::StaleNetworkFileHandle => io::Error::new(io::ErrorKind::NotFound, text),
                _ => with_context(text, error),
            }
        })
    }

    fn each(
        &mut self,
        protocol: Protocol,
        filter: &Filter,
        each: &mut dyn FnMut(Row),
    ) -> io::Result<Dumped> {
        filter.check()?;
        let families = [AF_INET, AF_INET6].into_iter();
        let families = families.filter(|family| filter.family.is_none_or(|wanted| wanted == *family));
        let mut all = Dumped::Complete;
        for family in families {
            let dumped = match &mut self.netlink {
                Some(netlink) => netlink.dump(&request::inet_dump(protocol, family, filter), |payload| {
                    let row = row::parse(payload, protocol)?;
                    // Kernels apply it in several places, and not always in all of them.
                    if filter.matches(&row) {
                        each(row);
                    }
                    Ok(())
                }),
                None => Err(io::ErrorKind::Unsupported.into()),
            };
            match dumped {
                Ok(Dumped::Complete) => {}
                Ok(Dumped::Interrupted) => all = Dumped::Interrupted,
                Err(error) if self.reads_files_after(&error) => {
                    if filter.interface.is_some() {
                        return Err(invalid("/proc/net does not have the interfaces of sockets".into()));
                    }
                    procfs::each_inet(protocol, family, |row| {
                        if filter.matches(&row) {
                            each(row);
                        }
                    })?;
                }
                // A kernel without IPv6.
                Err(error) if family == AF_INET6 && filter.family.is_none() && has_no_module(&error) => {}
                Err(error) => return Err(with_context("cannot dump the system's sockets", error)),
            }
        }
        Ok(all)
    }

    fn each_row_of_unix(
        &mut self,
        filter: &UnixFilter,
        each: &mut dyn FnMut(UnixRow),
    ) -> io::Result<Dumped> {
        let mut each = |row| {
            if filter.matches(&row) {
                each(row);
            }
        };
        let dumped = match &mut self.netlink {
            Some(netlink) => netlink.dump(&request::unix_dump(filter), |payload| {
                each(unix::parse(payload)?);
                Ok(())
            }),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        match dumped {
            Err(error) if self.reads_files_after(&error) => {
                procfs::each_unix(each)?;
                Ok(Dumped::Complete)
            }
            Err(error) => Err(with_context("cannot dump the system's Unix sockets", error)),
            dumped => dumped,
        }
    }

    /// Whether the files are read instead: there is no netlink, or it has no module for this.
    fn reads_files_after(&self, error: &io::Error) -> bool {
        self.files && (self.netlink.is_none() || has_no_module(error))
    }

    /// Whether netlink has no module for a protocol, which the answer to a request for one socket
    /// does not show.
    fn lacks(&mut self, protocol: Protocol) -> io::Result<bool> {
        let Some(netlink) = &mut self.netlink else {
            return Ok(true);
        };
        let nothing = request::inet_dump(protocol, AF_INET, &Filter::new().states([]));
        match netlink.dump(&nothing, |_| Ok(())) {
            Err(error) if has_no_module(&error) => Ok(true),
            dumped => dumped.map(|_| false),
        }
    }

    fn search(
        &mut self,
        protocol: Protocol,
        filter: &Filter,
        is: impl Fn(&Row) -> bool,
    ) -> io::Result<Option<Row>> {
        let mut found = None;
        self.each(protocol, filter, &mut |row| {
            if is(&row) {
                found = Some(row);
            }
        })?;
        Ok(found)
    }

    fn unix_by(&mut self, inode: u64, cookie: Option<u64>) -> io::Result<Option<UnixRow>> {
        // To the kernel 0 is no inode, and its inodes have 32 bits.
        let Some(number) = u32::try_from(inode).ok().filter(|inode| *inode != 0) else {
            return Ok(None);
        };
        if let Some(netlink) = &mut self.netlink {
            match unless_missing(netlink.one(&request::unix_one(number, cookie), unix::parse)) {
                Ok(Some(row)) => return Ok(Some(row)),
                Ok(None) if !self.files => return Ok(None),
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
        let mut found = None;
        self.each_row_of_unix(&UnixFilter::new(), &mut |row| {
            if row.inode == inode {
                found = Some(row);
            }
        })?;
        Ok(found)
    }
}

/// Every state, also that of sockets that are only bound.
fn every_state() -> impl Iterator<Item = TcpState> {
    (1..=11).map(TcpState::from_number)
}

/// The filter of a search by addresses.
fn by_id(id: &SocketId) -> Filter {
    Filter::new().states(every_state()).local_port(id.local.port()).family(if id.local.is_ipv4() {
        AF_INET
    } else {
        AF_INET6
    })
}

/// Makes a dump again until it is complete.
fn repeat<T>(mut dump: impl FnMut(&mut Vec<T>) -> io::Result<Dumped>) -> io::Result<Vec<T>> {
    let mut rows = Vec::new();
    for _ in 0..ATTEMPTS {
        if dump(&mut rows)? == Dumped::Complete {
            return Ok(rows);
        }
        rows.clear();
    }
    complete(Dumped::Interrupted).map(|()| rows)
}

/// Removes what a file of `/proc/net` had more than once. A row of netlink has a cookie.
fn without_doubles(mut rows: Vec<Row>) -> Vec<Row> {
    let mut seen = HashSet::new();
    rows.retain(|row| row.cookie.is_some() || seen.insert((row.local, row.peer, row.inode)));
    rows
}

fn complete(dumped: Dumped) -> io::Result<()> {
    match dumped {
        Dumped::Complete => Ok(()),
        Dumped::Interrupted => {
            let text = "the kernel's tables changed during the dump, so it is not complete";
            Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
        }
    }
}

/// `None` instead of the kernel's errors for a socket that does not exist: `ENOENT`, and `ESTALE` if
/// only the cookie is another one.
fn unless_missing<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(row) => Ok(Some(row)),
        Err(error) if matches!(errno(&error).and_then(errno_name), Some("ENOENT" | "ESTALE")) => Ok(None),
        Err(error) => Err(with_context("cannot ask for a socket", error)),
    }
}

/// The kernel's errors for a dump that no module makes.
fn has_no_module(error: &io::Error) -> bool {
    matches!(errno(error).and_then(errno_name), Some("ENOENT" | "EOPNOTSUPP" | "EPROTONOSUPPORT"))
}

fn protocol_of(sock: &Socket) -> io::Result<Protocol> {
    let protocol = match (sock.kind(), sock.proto()) {
        (SOCK_STREAM, 0 | sock::IPPROTO_TCP) => Some(Protocol::Tcp),
        (SOCK_DGRAM, 0 | sock::IPPROTO_UDP) => Some(Protocol::Udp),
        _ => None,
    };
    let protocol = protocol.filter(|_| [AF_INET, AF_INET6].contains(&sock.family()));
    protocol.ok_or_else(|| invalid(format!("{sock:?} is not a TCP or UDP socket")))
}

/// The inode of a socket's file.
fn inode_of(sock: &Socket) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    // The second descriptor is closed at once.
    Ok(File::from(sock.as_fd().try_clone_to_owned()?).metadata()?.ino())
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a dump of one port would cost what a dump of all sockets costs.
    #[test]
    fn the_kernel_applies_the_filter() {
        let server = sock::create_server(("127.0.0.1", 0)).unwrap();
        let port = server.getsockname().unwrap().port().unwrap();
        let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        client.connect(("127.0.0.1", port)).unwrap();
        let bound = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        bound.bind(("127.0.0.1", 0)).unwrap();
        let any = Filter::new;
        let no_loopback = any().local_port(port).peer_network([128, 0, 0, 0], 1);
        for (filter, expected) in [
            (any().either_port(port), 3),
            (any().either_port(port).local_ports(port..=port), 2),
            (any().either_port(port).peer_ports(1..=u16::MAX), 2),
            (any().either_port(port).peer_network([127, 0, 0, 0], 8), 2),
            (any().local_ports(port..=port).interface(0), 2),
            (any().local_ports(port - 1..=port).either_port(port).interface(77_777), 0),
            (no_loopback, 0),
            (any().local_port(bound.getsockname().unwrap().port().unwrap()), 1),
        ] {
            let filter = match expected {
                1 => filter.states([TcpState::Close]),
                _ => filter.states([TcpState::Listen, TcpState::Established]),
            };
            let mut rows = Vec::new();
            let request = request::inet_dump(Protocol::Tcp, AF_INET, &filter);
            let mut netlink = Netlink::open().unwrap();
            let collect = |payload: &[u8]| row::parse(payload, Protocol::Tcp).map(|row| rows.push(row));
            netlink.dump(&request, collect).unwrap();
            assert_eq!(rows.len(), expected, "{filter:?}: {rows:#?}");
        }
    }

    #[test]
    fn an_interrupted_dump_is_made_again() {
        let mut attempts = 0;
        let rows = repeat(|rows| {
            attempts += 1;
            rows.push(attempts);
            Ok(if attempts < 3 { Dumped::Interrupted } else { Dumped::Complete })
        });
        assert_eq!(rows.unwrap(), [3]);
    }

    #[test]
    fn a_dump_that_is_always_interrupted_is_an_error() {
        let mut attempts = 0;
        let rows = repeat(|rows: &mut Vec<u8>| {
            attempts += 1;
            rows.push(1);
            Ok(Dumped::Interrupted)
        });
        assert_eq!((rows.unwrap_err().kind(), attempts), (io::ErrorKind::ResourceBusy, ATTEMPTS));
    }
}
