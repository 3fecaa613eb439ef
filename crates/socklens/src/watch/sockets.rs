//! The sockets of watched programs, by the inode of the file that a descriptor refers to.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::event::HostName;
use crate::hub::Hub;

/// A process of a watched program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) host: HostName,
    /// Its identity: that of its first thread.
    pub(crate) id: i32,
    /// The thread that makes a call.
    pub(crate) thread: i32,
}

impl Process {
    /// Returns the inode of the socket that a descriptor refers to.
    fn inode(self, descriptor: i32) -> Option<u64> {
        let link = fs::read_link(format!("/proc/{}/fd/{descriptor}", self.thread)).ok()?;
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    }

    /// Whether the process has a descriptor of this socket.
    pub(crate) fn has_open(self, inode: u64) -> bool {
        let name = format!("socket:[{inode}]");
        let list = fs::read_dir(format!("/proc/{}/fd", self.thread)).into_iter().flatten().flatten();
        list.map(|entry| fs::read_link(entry.path()))
            .any(|link| link.is_ok_and(|link| link.as_os_str() == name.as_str()))
    }

    /// Returns a copy of a descriptor. Until it is closed, the socket is not closed either.
    fn copy(self, descriptor: i32) -> Option<OwnedFd> {
        let process = pidfd_open(Pid::from_raw(self.id)?, PidfdFlags::empty()).ok()?;
        pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()).ok()
    }

    /// Returns what an epoll descriptor waits for: the descriptor, its user data and its inode.
    fn registered(self, epoll: i32) -> Vec<(i32, u64, u64)> {
        let text = fs::read_to_string(format!("/proc/{}/fdinfo/{epoll}", self.thread)).unwrap_or_default();
        let line = |line: &str| {
            let line = line.strip_prefix("tfd:")?;
            let after = |key: &str| line.split_once(key)?.1.split_whitespace().next();
            Some((
                line.split_whitespace().next()?.parse().ok()?,
                u64::from_str_radix(after("data:")?, 16).ok()?,
                u64::from_str_radix(after("ino:")?, 16).ok()?,
            ))
        };
        text.lines().filter_map(line).collect()
    }
}

#[derive(Debug)]
struct Known {
    /// `None` if the socket is not shown.
    name: Option<String>,
    is_stream: bool,
}

/// The sockets that were seen.
#[derive(Debug)]
pub(crate) struct Sockets {
    known: HashMap<u64, Known>,
    numbers: [usize; 2],
    /// Whether sockets are shown that are not of IP, such as Unix sockets.
    shows_all: bool,
}

impl Sockets {
    pub(crate) fn new(shows_all: bool) -> Sockets {
        Sockets { known: HashMap::new(), numbers: [0; 2], shows_all }
    }

    pub(crate) fn shows(&self, family: u64) -> bool {
        let ip = [AddressFamily::INET, AddressFamily::INET6];
        self.shows_all || ip.iter().any(|ip| u64::from(ip.as_raw()) == family)
    }

    /// Returns the name of the socket that a descriptor refers to, and gives it one if it is new.
    /// `None` if it is no socket, or one that is not shown.
    pub(crate) fn name(&mut self, hub: &Hub, process: Process, descriptor: i32) -> Option<String> {
        let inode = process.inode(descriptor)?;
        if let Some(known) = self.known.get(&inode) {
            return known.name.clone();
        }
        let copy = process.copy(descriptor)?;
        let cookie = sockopt::socket_cookie(&copy).ok()?;
        let family = sockopt::socket_domain(&copy).ok()?;
        let is_datagram = sockopt::socket_type(&copy).is_ok_and(|kind| kind == SocketType::DGRAM);
        let is_stream = sockopt::socket_type(&copy).is_ok_and(|kind| kind == SocketType::STREAM);
        drop(copy);
        let name = self.shows(family.as_raw().into()).then(|| {
            let number = &mut self.numbers[process.host.index()];
            *number += 1;
            format!("{}{number}", process.host)
        });
        if let Some(name) = &name {
            let is_udp = is_datagram && family != AddressFamily::UNIX;
            hub.lock().name_foreign(cookie, name, process.host, is_udp);
        }
        self.known.insert(inode, Known { name: name.clone(), is_stream });
        name
    }

    /// Whether a descriptor refers to a known socket that has a stream of bytes.
    pub(crate) fn is_stream(&self, process: Process, descriptor: i32) -> bool {
        let known = process.inode(descriptor).and_then(|inode| self.known.get(&inode));
        known.is_some_and(|known| known.is_stream)
    }

    /// Returns the inode of a socket that has a name.
    pub(crate) fn inode_of(&self, name: &str) -> Option<u64> {
        self.known.iter().find(|(_, known)| known.name.as_deref() == Some(name)).map(|(inode, _)| *inode)
    }

    /// Returns the sockets that an epoll descriptor waits for, with the data of each.
    pub(crate) fn of_epoll(&mut self, hub: &Hub, process: Process, epoll: i32) -> Vec<(String, u64)> {
        let mut sockets = Vec::new();
        for (descriptor, data, inode) in process.registered(epoll) {
            // After a dup(2) or fork(2) the number may refer to another file than the one registered.
            let known = self.known.get(&inode).map(|known| known.name.clone());
            let name = known.unwrap_or_else(|| self.name(hub, process, descriptor));
            sockets.extend(name.map(|name| (name, data)));
        }
        sockets
    }
}
