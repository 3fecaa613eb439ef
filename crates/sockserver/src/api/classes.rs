//! The classes of Python's module, and those of the mixins that Python does not have.

use crate::api::kind::{Datagram, Inet, Stream, Unix};
use crate::api::server::Server;
use crate::models::pool::ThreadPoolMixIn;
use crate::models::sequential::Sequential;
use crate::models::threading::ThreadingMixIn;

/// Defines a type alias with an example for each row `name = kind<family>, mixin;`.
macro_rules! server_classes {
    ($($(#[$doc:meta])* $name:ident = $kind:ident<$family:ident>, $mixin:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Examples
        ///
        /// ```
        #[doc = concat!("use sockserver::{", stringify!($name), ", ", server_classes!(@function $kind), "};")]
        ///
        #[doc = server_classes!(@handler $kind)]
        #[doc = server_classes!(@path $family)]
        #[doc = concat!("let server = ", stringify!($name), "::new(", server_classes!(@address $family), ", echo)?;")]
        /// // server.serve_forever()?;
        /// server.server_close()?;
        /// # std::io::Result::Ok(())
        /// ```
        ///
        /// # Methods
        ///
        /// The methods are those of [`Server`], such as [`new`](Server::new),
        /// [`builder`](Server::builder), [`serve_forever`](Server::serve_forever) and
        /// [`handle`](Server::handle).
        pub type $name = Server<$kind<$family>, $mixin>;
    )*};
    (@function Stream) => { "handler_fn" };
    (@function Datagram) => { "datagram_handler_fn" };
    (@handler Stream) => { "let echo = handler_fn(|cx| cx.request.sendall(&cx.request.recv(1024)?));" };
    (@handler Datagram) => {
        "let echo = datagram_handler_fn(|cx| cx.socket.sendto(cx.packet, cx.client_address).map(drop));"
    };
    (@address Inet) => { "(\"127.0.0.1\", 0)" };
    (@address Unix) => { "\"echo.sock\"" };
    (@path Inet) => { "# // The server chooses the port." };
    // The example creates the path in a temporary folder.
    (@path Unix) => { "# let folder = tempfile::tempdir()?;\n# std::env::set_current_dir(&folder)?;" };
}
#[cfg(unix)]
pub(super) use server_classes;

server_classes! {
    /// Serves TCP connections one after another in the accept loop.
    ///
    /// Choose it for tests and for one client at a time, because a client waits until the earlier ones are
    /// done. Python: `class TCPServer(BaseServer)`.
    #[doc(alias = "TcpServer")]
    TCPServer = Stream<Inet>, Sequential;
    /// Serves UDP datagrams one after another in the accept loop.
    ///
    /// Choose it when handlers are short and do not block. It costs the least for each datagram. Python:
    /// `class UDPServer(TCPServer)`.
    #[doc(alias = "UdpServer")]
    UDPServer = Datagram<Inet>, Sequential;
    /// Serves connections of Unix sockets one after another in the accept loop.
    ///
    /// Choose it for tests and for one client at a time, because a client waits until the earlier ones are
    /// done. Python: `class UnixStreamServer(TCPServer)`.
    UnixStreamServer = Stream<Unix>, Sequential;
    /// Serves datagrams of Unix sockets one after another in the accept loop.
    ///
    /// Choose it when handlers are short and do not block. It costs the least for each datagram. Python:
    /// `class UnixDatagramServer(UDPServer)`.
    UnixDatagramServer = Datagram<Unix>, Sequential;
    /// Serves TCP connections, each in a thread of its own.
    ///
    /// Choose it for handlers that block and for up to about a thousand connections. Python: `class
    /// ThreadingTCPServer(ThreadingMixIn, TCPServer)`.
    #[doc(alias = "ThreadingTcpServer")]
    ThreadingTCPServer = Stream<Inet>, ThreadingMixIn;
    /// Serves UDP datagrams, each in a thread of its own.
    ///
    /// Choose it when handlers block, for example on a database. Python: `class
    /// ThreadingUDPServer(ThreadingMixIn, UDPServer)`.
    #[doc(alias = "ThreadingUdpServer")]
    ThreadingUDPServer = Datagram<Inet>, ThreadingMixIn;
    /// Serves connections of Unix sockets, each in a thread of its own.
    ///
    /// Choose it for handlers that block and for up to about a thousand connections. Python: `class
    /// ThreadingUnixStreamServer(ThreadingMixIn, UnixStreamServer)`.
    ThreadingUnixStreamServer = Stream<Unix>, ThreadingMixIn;
    /// Serves datagrams of Unix sockets, each in a thread of its own.
    ///
    /// Choose it when handlers block, for example on a database. Python: `class
    /// ThreadingUnixDatagramServer(ThreadingMixIn, UnixDatagramServer)`.
    ThreadingUnixDatagramServer = Datagram<Unix>, ThreadingMixIn;
    /// Serves TCP connections in a fixed number of threads.
    ///
    /// Choose it for short connections, or to bound the number of threads. A connection occupies its thread
    /// until it is closed. Not in Python.
    #[doc(alias = "ThreadPoolTcpServer")]
    ThreadPoolTCPServer = Stream<Inet>, ThreadPoolMixIn;
    /// Serves UDP datagrams in a fixed number of threads.
    ///
    /// Choose it when handlers block and the number of threads has to be bounded. Not in Python.
    #[doc(alias = "ThreadPoolUdpServer")]
    ThreadPoolUDPServer = Datagram<Inet>, ThreadPoolMixIn;
    /// Serves connections of Unix sockets in a fixed number of threads.
    ///
    /// Choose it for short connections, or to bound the number of threads. A connection occupies its thread
    /// until it is closed. Not in Python.
    ThreadPoolUnixStreamServer = Stream<Unix>, ThreadPoolMixIn;
    /// Serves datagrams of Unix sockets in a fixed number of threads.
    ///
    /// Choose it when handlers block and the number of threads has to be bounded. Not in Python.
    ThreadPoolUnixDatagramServer = Datagram<Unix>, ThreadPoolMixIn;
}
