//! The classes that exist on Unix only.

use super::classes::server_classes;
use crate::api::kind::{Datagram, Inet, Stream, Unix};
use crate::api::server::Server;
use crate::models::forking::ForkingMixIn;
use crate::models::prefork::PreforkMixIn;
use crate::models::selector::SelectorMixIn;

server_classes! {
    /// Serves TCP connections, each in a child process of its own.
    ///
    /// Choose it when a handler may crash or leak and must not affect other requests. A fork costs far more
    /// than a thread. Python: `class ForkingTCPServer(ForkingMixIn, TCPServer)`.
    #[doc(alias = "ForkingTcpServer")]
    ForkingTCPServer = Stream<Inet>, ForkingMixIn;
    /// Serves UDP datagrams, each in a child process of its own.
    ///
    /// Choose it when a handler may crash or leak and must not affect other requests. A fork costs far more
    /// than a thread. Python: `class ForkingUDPServer(ForkingMixIn, UDPServer)`.
    #[doc(alias = "ForkingUdpServer")]
    ForkingUDPServer = Datagram<Inet>, ForkingMixIn;
    /// Serves connections of Unix sockets, each in a child process of its own.
    ///
    /// Choose it when a handler may crash or leak and must not affect other requests. A fork costs far more
    /// than a thread. Python: `class ForkingUnixStreamServer(ForkingMixIn, UnixStreamServer)`.
    ForkingUnixStreamServer = Stream<Unix>, ForkingMixIn;
    /// Serves datagrams of Unix sockets, each in a child process of its own.
    ///
    /// Choose it when a handler may crash or leak and must not affect other requests. A fork costs far more
    /// than a thread. Python: `class ForkingUnixDatagramServer(ForkingMixIn, UnixDatagramServer)`.
    ForkingUnixDatagramServer = Datagram<Unix>, ForkingMixIn;
    /// Serves TCP connections in worker processes that are started before the first client.
    ///
    /// Choose it for isolation at low cost: a crash ends one worker, which is replaced. A worker serves one
    /// client at a time, or several with another [`worker_class`](crate::Builder::worker_class). Not in Python.
    #[doc(alias = "PreforkTcpServer")]
    PreforkTCPServer = Stream<Inet>, PreforkMixIn;
    /// Serves UDP datagrams in worker processes that are started before the first client.
    ///
    /// Choose it for isolation at low cost: a crash ends one worker, which is replaced. Not in Python.
    #[doc(alias = "PreforkUdpServer")]
    PreforkUDPServer = Datagram<Inet>, PreforkMixIn;
    /// Serves connections of Unix sockets in worker processes that are started before the first client.
    ///
    /// Choose it for isolation at low cost: a crash ends one worker, which is replaced. A worker serves one
    /// client at a time, or several with another [`worker_class`](crate::Builder::worker_class). Not in Python.
    PreforkUnixStreamServer = Stream<Unix>, PreforkMixIn;
    /// Serves datagrams of Unix sockets in worker processes that are started before the first client.
    ///
    /// Choose it for isolation at low cost: a crash ends one worker, which is replaced. Not in Python.
    PreforkUnixDatagramServer = Datagram<Unix>, PreforkMixIn;
    /// Serves TCP connections in a few threads. Idle connections use no thread.
    ///
    /// Choose it for many keep-alive connections that are idle most of the time. Not in Python.
    #[doc(alias = "SelectorTcpServer")]
    SelectorTCPServer = Stream<Inet>, SelectorMixIn;
    /// Serves connections of Unix sockets in a few threads. Idle connections use no thread.
    ///
    /// Choose it for many keep-alive connections that are idle most of the time. Not in Python.
    SelectorUnixStreamServer = Stream<Unix>, SelectorMixIn;
}
