//! Python's [`socket`](https://docs.python.org/3/library/socket.html) module for
//! Rust: the BSD socket API with Python's names and semantics.
//!
//! | Python | here |
//! | --- | --- |
//! | `socket.socket(AF_INET, SOCK_STREAM)` | [`Socket::new`]`(AF_INET, SOCK_STREAM, 0)` |
//! | `sock.bind(("", 80))` | the same; an address is any [`ToAddress`] |
//! | `sock.recv(1024, MSG_PEEK)` | `sock.recv_with_flags(1024, MSG_PEEK)`; an optional argument becomes a method of its own |
//! | `sock.settimeout(2.5)` | `sock.settimeout(2.5)` |
//! | `sock.makefile("rb")` | [`Socket::makefile_rb`] |
//! | `except OSError as e` | [`std::io::Error`]; see [`errno`], [`errno_name`] and [`GaiError`] |
//!
//! # Tour
//!
//! A server and a client in one thread. This works because the kernel queues connections and data.
//!
//! ```
//! use sock::{AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, Socket};
//!
//! let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
//! server.setsockopt(SOL_SOCKET, SO_REUSEADDR, true)?;
//! server.bind(("127.0.0.1", 0))?;
//! server.listen(5)?;
//!
//! let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
//! client.sendall(b"Hello, world")?;
//! client.shutdown(sock::SHUT_WR)?;
//!
//! let (connection, address) = server.accept()?;
//! println!("{address} connected");
//! loop {
//!     let data = connection.recv(1024)?;
//!     if data.is_empty() {
//!         break; // end of file
//!     }
//!     connection.sendall(&data)?;
//! }
//! drop(connection);
//! assert_eq!(client.recv(1024)?, b"Hello, world");
//! # std::io::Result::Ok(())
//! ```
//!
//! # Modes
//!
//! As in Python, a socket is in blocking mode, in non-blocking mode, or has a timeout. A timeout is
//! one deadline for the whole call. A call that does not have to wait is one system call in each
//! mode.
//!
//! # Log levels
//!
//! With a logger installed, target `sock::call` at level trace logs one line for each BSD call, like
//! strace(1): `RUST_LOG=sock=trace` with `env_logger`. The record has key-values such as `call` and
//! `errno`. [`set_entry_records`] adds a record at target `sock::enter` when a call begins.
//!
//! # Hints
//!
//! Target `sock::hint` at level trace logs calls that are legal and usually a mistake:
//! `RUST_LOG=sock::hint` with `env_logger`. Each hint says what to do, and names the scenario of the
//! program `socklens` that shows the mistake. The record has the key-values `hint`, `scenario` and, if
//! there is a descriptor, `fd`. While the level is disabled, hints cost nothing. While it is enabled,
//! some calls make further system calls.
//!
//! | `hint` | logged when |
//! | --- | --- |
//! | `port-held` | `bind` or `listen` fails with `EADDRINUSE`: on Linux with the process that has the port, or the time that is left of TIME-WAIT |
//! | `path-held`, `stale-path` | `bind` to a Unix path fails because a process has it, or because the file is left from a closed socket; `connect` to such a file fails |
//! | `partial-send` | [`send`](Socket::send) on a stream took a part of the data; once for each socket |
//! | `end-of-file` | a receive on a stream has returned the end of file three times |
//! | `unread-bytes` | the last descriptor of a connection is closed with bytes that were not received, so the peer gets a reset |
//! | `backlog-full` | [`accept`](Socket::accept) finds the queue of its listener full (Linux), or `connect` to a Unix socket does |
//! | `datagram-truncated` | a datagram was longer than the buffer (from [`recv`](Socket::recv) on Linux only) |
//! | `busy-loop` | [`poll`] or a selector has reported a descriptor 100 times in a row without waiting, and no call used it |
//! | `blocked-worker` | a call blocked for 50 ms in a handler of the selector of `sockserver` |
//!
//! The crate has no other log records.
//!
//! # Features
//!
//! The crate has no feature flags. Items that exist on some systems only are marked.
//!
//! # Guide, examples and other crates
//!
//! - [Porting](guide::porting) shows Python and Rust side by side, and
//!   [differences](guide::differences) lists what behaves differently on purpose.
//!   [Platforms](guide::platforms) lists what runs where. The other pages are in [`guide`].
//! - The [examples] are complete programs, each in Rust and in Python.
//! - [`sockserver`] is Python's `socketserver`, and [`sockssl`] is `ssl`. [`sockdiag`] lists the
//!   sockets of the system, and [`socklens`] shows calls and packets in lessons.
//!
//! # Out of scope
//!
//! - Async: use tokio. A [`Socket`] can be converted into tokio's types through `OwnedFd`.
//! - Protocols above the transport: servers are in the crate [`sockserver`], TLS is in [`sockssl`].
//!
//! The [documentation of Python's module](https://docs.python.org/3/library/socket.html) applies to
//! this crate too. It is built on `socket2`.
//!
#![cfg_attr(docsrs, doc = "[`sockserver`]: https://docs.rs/sockserver")]
#![cfg_attr(not(docsrs), doc = "[`sockserver`]: ../sockserver/index.html")]
#![cfg_attr(docsrs, doc = "[`sockssl`]: https://docs.rs/sockssl")]
#![cfg_attr(not(docsrs), doc = "[`sockssl`]: ../sockssl/index.html")]
#![cfg_attr(docsrs, doc = "[`sockdiag`]: https://docs.rs/sockdiag")]
#![cfg_attr(not(docsrs), doc = "[`sockdiag`]: ../sockdiag/index.html")]
#![cfg_attr(docsrs, doc = "[`socklens`]: https://docs.rs/socklens")]
#![cfg_attr(not(docsrs), doc = "[`socklens`]: ../socklens/index.html")]
#![cfg_attr(docsrs, doc = "[examples]: guide/index.html#examples")]
#![cfg_attr(not(docsrs), doc = "[examples]: ../../../examples/README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_debug_implementations)]

mod address;
mod call;
mod consts;
mod create;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz_invariants;
pub mod guide;
mod netdb;
mod relay;
pub mod selectors;
mod socket;
mod stream;
mod sys;

pub use address::{Address, Host, Port, ToAddress, UnixAddress};
pub use call::cancel::{Canceller, set_interrupt_hook, was_cancelled, was_interrupted};
pub use call::deadline::{
    Deadline, Events, POLLERR, POLLHUP, POLLIN, POLLOUT, Poll, getdefaulttimeout, poll, setdefaulttimeout,
};
#[doc(hidden)]
pub use call::hint::set_serving_thread;
pub use call::to_timeout::{ToDuration, ToTimeout};
#[doc(hidden)]
pub use call::trace::HoldRecords;
pub use call::trace::set_entry_records;
#[doc(hidden)]
pub use call::trace::traced;
pub use consts::*;
pub use create::create_connection::{
    ConnectError, ConnectionOptions, create_connection, create_connection_with,
};
pub use create::create_server::{
    ServerOptions, create_server, create_server_with, has_dualstack_ipv6, socketpair, socketpair_with,
};
pub use error::{
    AddressError, ArgumentError, ArgumentFault, GaiError, HostError, errno, errno_name, find_error,
};
pub use netdb::getaddrinfo::{AddrInfo, Hints, ServiceName, getaddrinfo, getaddrinfo_with, gethostname};
pub use netdb::inet::{htonl, htons, inet_aton, inet_ntoa, inet_ntop, inet_pton, ntohl, ntohs};
pub use netdb::{
    HostEntry, getfqdn, gethostbyaddr, gethostbyname, gethostbyname_ex, getnameinfo, getprotobyname,
    getservbyname, getservbyport,
};
pub use relay::{Relay, RelayCounts, RelayDirection, RelayError, RelayOptions, relay, relay_with};
pub use socket::Socket;
pub use socket::descriptor::{FromFdError, close, dup};
pub use socket::linger::Lingered;
pub use socket::options::{Linger, ToOption};
pub use socket::tcp_info::{TcpInfo, TcpState};
pub use socket::tcp_state::ParseTcpStateError;
pub use stream::StreamSocket;
#[doc(hidden)]
pub use stream::buffer::{FillBuffer, ReadBuffer};
pub use stream::lines::{ByteLines, MAX_LINE};
pub use stream::makefile::{DEFAULT_BUFFER_SIZE, SocketPair, SocketReader, SocketWriter};
pub use sys::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

#[cfg(unix)]
pub use {
    netdb::getaddrinfo::sethostname,
    netdb::interface::{if_indextoname, if_nameindex, if_nametoindex},
    socket::message::ancillary::PacketInfo,
    socket::message::batch::{Datagram, RecvBatch, SentBatch},
    socket::message::cmsg::{Ancillary, CMSG_LEN, CMSG_SPACE},
    socket::message::credentials::Credentials,
    socket::message::{Message, MessageInto, ReceivedFds},
};

#[cfg(target_os = "linux")]
pub use {
    address::os::{CanAddress, NetlinkAddress, PacketAddress, VsockAddress},
    socket::meminfo::MemInfo,
};
