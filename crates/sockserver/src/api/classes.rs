//! The directory of classes: each name with its line of Python.

use crate::accept::mixin::Sequential;
use crate::api::server::{DatagramServer, Inet, StreamServer, Unix};
use crate::models::pool::ThreadPoolMixIn;
use crate::models::threading::ThreadingMixIn;

/// `class TCPServer(BaseServer)`: one connection after the other.
#[doc(alias = "TcpServer")]
pub type TCPServer = StreamServer<Inet, Sequential>;

/// `class UDPServer(TCPServer)`: one datagram after the other.
#[doc(alias = "UdpServer")]
pub type UDPServer = DatagramServer<Inet, Sequential>;

/// `class UnixStreamServer(TCPServer)`.
pub type UnixStreamServer = StreamServer<Unix, Sequential>;

/// `class UnixDatagramServer(UDPServer)`.
pub type UnixDatagramServer = DatagramServer<Unix, Sequential>;

/// `class ThreadingTCPServer(ThreadingMixIn, TCPServer)`.
#[doc(alias = "ThreadingTcpServer")]
pub type ThreadingTCPServer = StreamServer<Inet, ThreadingMixIn>;

/// `class ThreadingUDPServer(ThreadingMixIn, UDPServer)`.
#[doc(alias = "ThreadingUdpServer")]
pub type ThreadingUDPServer = DatagramServer<Inet, ThreadingMixIn>;

/// `class ThreadingUnixStreamServer(ThreadingMixIn, UnixStreamServer)`.
pub type ThreadingUnixStreamServer = StreamServer<Unix, ThreadingMixIn>;

/// `class ThreadingUnixDatagramServer(ThreadingMixIn, UnixDatagramServer)`.
pub type ThreadingUnixDatagramServer = DatagramServer<Unix, ThreadingMixIn>;

/// A fixed number of threads: like `class ThreadPoolTCPServer(ThreadPoolMixIn,
/// TCPServer)`, which Python does not have.
#[doc(alias = "ThreadPoolTcpServer")]
pub type ThreadPoolTCPServer = StreamServer<Inet, ThreadPoolMixIn>;

/// The same for datagrams.
#[doc(alias = "ThreadPoolUdpServer")]
pub type ThreadPoolUDPServer = DatagramServer<Inet, ThreadPoolMixIn>;

/// The same over Unix sockets.
pub type ThreadPoolUnixStreamServer = StreamServer<Unix, ThreadPoolMixIn>;

/// The same for datagrams over Unix sockets.
pub type ThreadPoolUnixDatagramServer = DatagramServer<Unix, ThreadPoolMixIn>;

#[cfg(unix)]
pub use forking::*;

/// A child process for each request, where the system can fork.
#[cfg(unix)]
mod forking {
    use crate::api::server::{DatagramServer, Inet, StreamServer, Unix};
    use crate::models::forking::ForkingMixIn;

    /// `class ForkingTCPServer(ForkingMixIn, TCPServer)`.
    #[doc(alias = "ForkingTcpServer")]
    pub type ForkingTCPServer = StreamServer<Inet, ForkingMixIn>;

    /// `class ForkingUDPServer(ForkingMixIn, UDPServer)`.
    #[doc(alias = "ForkingUdpServer")]
    pub type ForkingUDPServer = DatagramServer<Inet, ForkingMixIn>;

    /// `class ForkingUnixStreamServer(ForkingMixIn, UnixStreamServer)`.
    pub type ForkingUnixStreamServer = StreamServer<Unix, ForkingMixIn>;

    /// `class ForkingUnixDatagramServer(ForkingMixIn, UnixDatagramServer)`.
    pub type ForkingUnixDatagramServer = DatagramServer<Unix, ForkingMixIn>;
}

#[cfg(unix)]
pub use selecting::*;

/// Connections that wait without a thread.
#[cfg(unix)]
mod selecting {
    use crate::api::server::{Inet, StreamServer, Unix};
    use crate::models::selector::SelectorMixIn;

    /// A few threads for all connections: like `class SelectorTCPServer(SelectorMixIn,
    /// TCPServer)`, which Python does not have.
    #[doc(alias = "SelectorTcpServer")]
    pub type SelectorTCPServer = StreamServer<Inet, SelectorMixIn>;

    /// The same over Unix sockets.
    pub type SelectorUnixStreamServer = StreamServer<Unix, SelectorMixIn>;
}

#[cfg(unix)]
pub use preforking::*;

/// Processes that are there before their clients.
#[cfg(unix)]
mod preforking {
    use crate::api::server::{DatagramServer, Inet, StreamServer, Unix};
    use crate::models::prefork::PreforkMixIn;

    /// Worker processes: like `class PreforkTCPServer(PreforkMixIn, TCPServer)`, which
    /// Python does not have.
    #[doc(alias = "PreforkTcpServer")]
    pub type PreforkTCPServer = StreamServer<Inet, PreforkMixIn>;

    /// The same for datagrams.
    #[doc(alias = "PreforkUdpServer")]
    pub type PreforkUDPServer = DatagramServer<Inet, PreforkMixIn>;

    /// The same over Unix sockets.
    pub type PreforkUnixStreamServer = StreamServer<Unix, PreforkMixIn>;

    /// The same for datagrams over Unix sockets.
    pub type PreforkUnixDatagramServer = DatagramServer<Unix, PreforkMixIn>;
}
