//! Two hosts joined by a wire.
//!
//! A host is a network namespace. The wire consists of two veth pairs, one for each host, whose
//! other ends are `AF_PACKET` sockets; or of two TUN devices. Where neither is allowed, both hosts
//! are addresses of the loopback network of this system, and there is no wire.

use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sock::SHUT_RDWR;

use crate::end::End;
use crate::event::HostName;
use crate::hub::Hub;
use crate::observe::Observer;
use crate::{rtnl, sys};

/// The version of the running kernel, or zeros if it is not known, and its whole name.
pub(crate) fn linux_version() -> ((u32, u32), String) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (version, release.trim().to_owned())
}

/// How the two hosts are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Two network namespaces, veth pairs and `AF_PACKET` sockets.
    Veth,
    /// Two network namespaces and TUN devices.
    Tun,
    /// Addresses of the loopback network, without a wire.
    Loopback,
}

impl Tier {
    /// All tiers, in the order in which they are tried.
    pub const ALL: [Tier; 3] = [Tier::Veth, Tier::Tun, Tier::Loopback];

    /// Reads the name of a tier.
    #[must_use]
    pub fn parse(name: &str) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| tier.to_string() == name)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Veth => "veth",
            Tier::Tun => "tun",
            Tier::Loopback => "loopback",
        })
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads in the network namespace of one host. A call that blocks has a thread of its own.
struct Workers {
    namespace: Option<OwnedFd>,
    idle: Mutex<Option<Vec<Sender<Job>>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Workers {
    fn new(namespace: Option<OwnedFd>) -> Arc<Workers> {
        Arc::new(Workers { namespace, idle: Mutex::new(Some(Vec::new())), threads: Mutex::default() })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Option<Vec<Sender<Job>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(self: &Arc<Workers>, job: Job) -> io::Result<()> {
        let worker = self.idle().as_mut().and_then(Vec::pop);
        let Some(worker) = worker else { return self.start(job) };
        match worker.send(job) {
            Ok(()) => Ok(()),
            Err(unsent) => self.start(unsent.0),
        }
    }

    fn start(self: &Arc<Workers>, job: Job) -> io::Result<()> {
        let workers = self.clone();
        let (sender, jobs): (Sender<Job>, Receiver<Job>) = channel();
        let thread = thread::Builder::new().name("actor".to_owned()).spawn(move || {
            if let Some(namespace) = &workers.namespace {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind)
                    .expect("a thread can move into a namespace of this process");
            }
            let mut job = job;
            loop {
                job();
                match workers.idle().as_mut() {
                    Some(idle) => idle.push(sender.clone()),
                    None => return,
                }
                // This thread has a sender too, so `close` sends a last job.
                match jobs.recv() {
                    Ok(next) => job = next,
                    Err(_) => return,
                }
            }
        })?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Ends idle threads, and waits until the others have ended or the limit has expired.
    fn close(&self, limit: Duration) {
        for worker in self.idle().take().into_iter().flatten() {
            // The thread returns after it, because there is no list of idle threads any more.
            let _ = worker.send(Box::new(|| {}));
        }
        let end = Instant::now() + limit;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            while !thread.is_finished() && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

/// The addresses of the hosts, and where they differ from those of the scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    real: [Ipv4Addr; 2],
    is_translated: bool,
    /// Ports below this one are moved up by [`PORT_SHIFT`].
    first_port: u16,
}

/// The addresses of A and B in a scenario.
pub(crate) const SCENARIO: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
const PORT_SHIFT: u16 = 20_000;

impl Addresses {
    fn of_wire() -> Addresses {
        Addresses { real: SCENARIO, is_translated: false, first_port: 0 }
    }

    /// A network of 127.0.0.0/8 for this process, so that several can run at once.
    fn of_loopback() -> Addresses {
        let [.., middle, low] = std::process::id().to_be_bytes();
        let real = [1, 2].map(|last| Ipv4Addr::new(127, 64 | middle & 63, low, last));
        let first_port = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1024);
        Addresses { real, is_translated: true, first_port }
    }

    pub(crate) fn is_translated(&self) -> bool {
        self.is_translated
    }

    pub(crate) fn of(&self, host: HostName) -> Ipv4Addr {
        self.real[host.index()]
    }

    /// The real address for one of the scenario.
    pub(crate) fn real(&self, ip: &str, port: u16) -> (String, u16) {
        let place = SCENARIO.iter().position(|known| known.to_string() == ip);
        let ip = place.map_or(ip.to_owned(), |place| self.real[place].to_string());
        let is_moved = self.is_translated && port != 0 && port < self.first_port;
        (ip, if is_moved { port + PORT_SHIFT } else { port })
    }

    /// The address of the scenario for a real one.
    pub(crate) fn shown(&self, ip: &str, port: u16) -> (String, u16) {
        let place = self.real.iter().position(|known| known.to_string() == ip);
        let ip = place.map_or(ip.to_owned(), |place| SCENARIO[place].to_string());
        let back = port.checked_sub(PORT_SHIFT).filter(|port| *port != 0 && *port < self.first_port);
        (ip, back.filter(|_| self.is_translated).unwrap_or(port))
    }
}

/// A folder for the Unix sockets of a lab, made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Folder(OnceLock<PathBuf>);

impl Folder {
    pub(crate) fn path(&self) -> io::Result<&Path> {
        if let Some(path) = self.0.get() {
            return Ok(path);
        }
        // For this user only.
        let mode = fs::Permissions::from_mode(0o700);
        let new = tempfile::Builder::new().prefix("socklens-").permissions(mode).tempdir()?;
        // Another thread may have made one meanwhile. Then the new one is removed.
        if self.0.set(new.path().to_owned()).is_ok() {
            let _ = new.keep();
        }
        Ok(self.0.get().expect("it is set"))
    }

    /// Returns the path in a scenario: relative to the folder.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> &'a Path {
        self.0.get().and_then(|folder| path.strip_prefix(folder).ok()).unwrap_or(path)
    }
}

impl Folder {
    /// A call that still blocks keeps its reference to the folder, so the lab removes it.
    pub(crate) fn remove(&self) {
        if let Some(path) = self.0.get() {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// Two hosts and what joins them.
#[derive(Debug)]
pub struct Lab {
    pub(crate) hub: Arc<Hub>,
    hosts: [Arc<Workers>; 2],
    wire: Option<JoinHandle<()>>,
    tier: Tier,
    reasons: Vec<String>,
    pub(crate) addresses: Addresses,
    pub(crate) folder: Arc<Folder>,
}

impl Lab {
    /// Builds a lab: of the wanted tier, or of the first tier that this system allows.
    ///
    /// The first call must be made while the process has one thread, because a process with more
    /// cannot move into a user namespace. Without a user namespace only root has network
    /// namespaces.
    ///
    /// # Errors
    ///
    /// Returns an error if no tier, or not the wanted one, can be built. Its text has the reason of
    /// each.
    pub fn new(wanted: Option<Tier>) -> io::Result<Lab> {
        let mut reasons = Vec::new();
        for tier in Tier::ALL.into_iter().filter(|tier| wanted.is_none_or(|wanted| wanted == *tier)) {
            let parts = match tier {
                Tier::Loopback => Parts::loopback(),
                tier => Parts::wire(tier),
            };
            match parts.and_then(|parts| Lab::start(parts, tier)) {
                Ok(mut lab) => {
                    lab.reasons = reasons;
                    return Ok(lab);
                }
                Err(error) => reasons.push(format!("no {tier}: {error}")),
            }
        }
        Err(io::Error::other(reasons.join("; ")))
    }

    fn start(parts: Parts, tier: Tier) -> io::Result<Lab> {
        let [a, b] = parts.namespaces;
        let addresses = parts.addresses;
        let own =
            HostName::BOTH.map(|host| addresses.is_translated.then(|| format!("{}:", addresses.of(host))));
        let hub = Arc::new(Hub::new(parts.observers, parts.ends, own)?);
        let wire = hub.clone();
        let wire = thread::Builder::new().name("wire".to_owned()).spawn(move || wire.run())?;
        let hosts = [Workers::new(a), Workers::new(b)];
        let folder = Arc::default();
        Ok(Lab { hub, hosts, wire: Some(wire), tier, reasons: Vec::new(), addresses, folder })
    }

    /// Returns how the hosts are made.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Returns why the tiers before this one could not be built.
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Runs a job in a thread of a host.
    pub(crate) fn run(&self, host: HostName, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.hosts[host.index()].run(Box::new(job))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.hub.end_programs();
        // A call that blocks returns once its socket was shut down.
        let entries = std::mem::take(&mut self.hub.lock().entries);
        for entry in entries.values() {
            if let Some(sock) = &entry.sock {
                let _ = sock.shutdown(SHUT_RDWR);
            }
        }
        drop(entries);
        for host in &self.hosts {
            host.close(Duration::from_secs(1));
        }
        self.hub.stop();
        if let Some(wire) = self.wire.take() {
            let _ = wire.join();
        }
        self.folder.remove();
    }
}

/// What a lab is made of.
struct Parts {
    namespaces: [Option<OwnedFd>; 2],
    observers: Vec<Observer>,
    ends: Vec<End>,
    addresses: Addresses,
}

/// Name of a host's device.
const DEVICE: &str = "eth0";
/// The hosts have the same hardware address: a device without ARP sends to its own one.
const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const LOOPBACK: u32 = 1;

impl Parts {
    fn loopback() -> io::Result<Parts> {
        let addresses = Addresses::of_loopback();
        let observer = |host| Observer::of_address(addresses.of(host)).map_err(of("NETLINK_SOCK_DIAG"));
        Ok(Parts {
            namespaces: [None, None],
            observers: vec![observer(HostName::A)?, observer(HostName::B)?],
            ends: Vec::new(),
            addresses,
        })
    }

    /// Builds both hosts in a thread of its own, because the calling thread must stay in its
    /// network namespace.
    fn wire(tier: Tier) -> io::Result<Parts> {
        let user = enter_user_namespace();
        let build = move || -> io::Result<Parts> {
            sys::new_network_namespace().map_err(|error| {
                let user = user.as_ref().err().map(|user| format!("{user}; ")).unwrap_or_default();
                let hint = match error.raw_os_error() {
                    Some(errors::ENOSPC) => ": user.max_net_namespaces is reached",
                    _ => "",
                };
                io::Error::new(error.kind(), format!("{user}unshare(CLONE_NEWNET): {error}{hint}"))
            })?;
            // A dump of sockets walks the table of all hosts unless a namespace has its own.
            set("ipv4/tcp_child_ehash_entries", "64");
            set("ipv6/conf/default/disable_ipv6", "1");
            let route = rtnl::Netlink::route().map_err(of("NETLINK_ROUTE"))?;
            let mut parts = Parts {
                namespaces: [None, None],
                observers: Vec::new(),
                ends: Vec::new(),
                addresses: Addresses::of_wire(),
            };
            for host in HostName::BOTH {
                let (namespace, observer, end) = build_host(host, tier, &route)?;
                parts.namespaces[host.index()] = Some(namespace);
                parts.observers.push(observer);
                parts.ends.push(end);
            }
            Ok(parts)
        };
        let thread = thread::Builder::new().name("setup".to_owned()).spawn(build)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that builds the hosts panicked")))
    }
}

/// Builds a host. The calling thread is in the network namespace of the wire.
fn build_host(host: HostName, tier: Tier, route: &rtnl::Netlink) -> io::Result<(OwnedFd, Observer, End)> {
    let (for_wire, from_host) = channel();
    let (for_host, from_wire) = channel::<()>();
    let build = move || -> io::Result<(Observer, Option<End>)> {
        sys::new_network_namespace()?;
        // The textbook's congestion control, no tail loss probes, and no memory of earlier
        // connections: otherwise the packets of two runs differ.
        set("ipv4/tcp_congestion_control", "reno");
        set("ipv4/tcp_early_retrans", "0");
        set("ipv4/tcp_no_metrics_save", "1");
        // A packet that comes late would reset a connection in TIME-WAIT (RFC 1337).
        set("ipv4/tcp_rfc1337", "1");
        set("ipv6/conf/default/disable_ipv6", "1");
        let own = rtnl::Netlink::route().map_err(of("NETLINK_ROUTE"))?;
        own.up(LOOPBACK)?;
        let observer = Observer::new().map_err(of("NETLINK_SOCK_DIAG"))?;
        let mut end = None;
        if tier == Tier::Tun {
            end = Some(End::Tun(sys::tun(DEVICE).map_err(of("/dev/net/tun"))?));
        }
        let namespace = fs::File::open("/proc/thread-self/ns/net")?;
        // The wire answers once the device is there. An error means that it could not create it.
        let _ = for_wire.send(OwnedFd::from(namespace));
        if tier == Tier::Veth && from_wire.recv().is_err() {
            return Err(io::Error::other("the device was not created"));
        }
        let device = sock::if_nametoindex(DEVICE)?;
        if tier == Tier::Veth {
            rtnl::offloads_off(device).map_err(of("the offloads of the device"))?;
        }
        own.add_address(device, SCENARIO[host.index()]).map_err(of("the address of the device"))?;
        own.up(device)?;
        own.add_multicast_route(device)?;
        Ok((observer, end))
    };
    let thread = thread::Builder::new().name(format!("host {host}")).spawn(build)?;
    let join = |thread: JoinHandle<io::Result<(Observer, Option<End>)>>| {
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that builds a host panicked")))
    };
    let Ok(namespace) = from_host.recv() else {
        return Err(join(thread).err().unwrap_or_else(|| io::Error::other("there is no host")));
    };
    let mut end = None;
    if tier == Tier::Veth {
        let name = format!("to{host}");
        route.veth(&name, DEVICE, namespace.as_fd(), HARDWARE).map_err(of("the veth devices"))?;
        let index = sock::if_nametoindex(name.as_str())?;
        route.up(index)?;
        end = Some(End::of_device(index).map_err(of("AF_PACKET"))?);
        let _ = for_host.send(());
    }
    let (observer, tun) = join(thread)?;
    let end = end.or(tun).ok_or_else(|| io::Error::other("the wire has no end"))?;
    Ok((namespace, observer, end))
}

/// Sets a parameter of the calling thread's network namespace. Containers may forbid it, and then
/// the defaults stay.
fn set(name: &str, value: &str) {
    let _ = fs::write(format!("/proc/sys/net/{name}"), value);
}

/// Moves the process into a user namespace, in which it has all capabilities, at the first call.
fn enter_user_namespace() -> &'static Result<(), String> {
    static ENTERED: OnceLock<Result<(), String>> = OnceLock::new();
    ENTERED.get_or_init(|| {
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        sys::new_user_namespace().map_err(|error| {
            let hint = match error.raw_os_error() {
                Some(errors::EPERM) => {
                    ": user namespaces are forbidden here (a container, kernel.unprivileged_userns_clone=0, \
                     or an AppArmor rule)"
                }
                Some(errors::ENOSPC) => ": user.max_user_namespaces is reached",
                Some(errors::EINVAL) => ": the process has more than one thread",
                _ => "",
            };
            format!("unshare(CLONE_NEWUSER): {error}{hint}")
        })?;
        let map = |file: &str, text: String| {
            fs::write(format!("/proc/self/{file}"), text).map_err(|error| {
                format!(
                    "{file}: {error}: on Ubuntu, kernel.apparmor_restrict_unprivileged_userns=0 or an \
                     AppArmor profile with userns permits it"
                )
            })
        };
        map("setgroups", "deny".to_owned())?;
        map("uid_map", format!("0 {user} 1"))?;
        map("gid_map", format!("0 {group} 1"))
    })
}

/// Adds to an error what has failed.
fn of(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Numbers of errors.
mod errors {
    pub(super) const EPERM: i32 = 1;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ENOSPC: i32 = 28;
}
