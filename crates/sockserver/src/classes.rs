//! The directory of classes: each name with its line of Python.

use crate::mixin::Sequential;
#[cfg(unix)]
use crate::mixin::forking::ForkingMixIn;
use crate::mixin::threading::ThreadingMixIn;
use crate::server::{DatagramServer, Inet, StreamServer, Unix};

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

/// `class ForkingTCPServer(ForkingMixIn, TCPServer)`.
#[cfg(unix)]
#[doc(alias = "ForkingTcpServer")]
pub type ForkingTCPServer = StreamServer<Inet, ForkingMixIn>;

/// `class ForkingUDPServer(ForkingMixIn, UDPServer)`.
#[cfg(unix)]
#[doc(alias = "ForkingUdpServer")]
pub type ForkingUDPServer = DatagramServer<Inet, ForkingMixIn>;

/// `class ForkingUnixStreamServer(ForkingMixIn, UnixStreamServer)`.
#[cfg(unix)]
pub type ForkingUnixStreamServer = StreamServer<Unix, ForkingMixIn>;

/// `class ForkingUnixDatagramServer(ForkingMixIn, UnixDatagramServer)`.
#[cfg(unix)]
pub type ForkingUnixDatagramServer = DatagramServer<Unix, ForkingMixIn>;
