//! How a server leaves its listeners to another process.

use std::io;
use std::time::Duration;

use sock::Socket;

use crate::lifecycle::handle::ServerHandle;
use crate::limits::drain_report::DrainReport;
use crate::os::bound_path::BoundPath;

/// What a server is doing with its listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handing {
    Nothing,
    /// A successor gets ready.
    InProgress,
    /// They are released to the process with this id, 0 if it is not known.
    Done(u32),
}

/// [`Handing`] as a number: its process id, or one of these.
const NOTHING: u64 = 1 << 32;
const IN_PROGRESS: u64 = 2 << 32;

impl Handing {
    pub(super) fn encode(self) -> u64 {
        match self {
            Handing::Nothing => NOTHING,
            Handing::InProgress => IN_PROGRESS,
            Handing::Done(pid) => pid.into(),
        }
    }

    pub(super) fn decode(number: u64) -> Handing {
        match number {
            NOTHING => Handing::Nothing,
            IN_PROGRESS => Handing::InProgress,
            pid => Handing::Done(pid as u32),
        }
    }
}

impl ServerHandle {
    /// Returns a duplicate of each listener, for a process that is to serve in place of this one.
    ///
    /// The order is that of [`server_addresses`](crate::Server::server_addresses). The duplicates are
    /// closed when a program is executed. They can be sent to another process
    /// ([`send_fds`](sock::Socket::send_fds)), and [`Builder::adopt`](crate::Builder::adopt) makes a server
    /// of them. This server goes on, and both accept clients from the same queue. A drain of this
    /// server still shuts the listeners down, for all processes: call
    /// [`release_listeners`](Self::release_listeners) as soon as the other process serves. System
    /// call: fcntl(2) with `F_DUPFD_CLOEXEC`.
    ///
    /// The mode of blocking belongs to the listener and not to its duplicate. `adopt` makes it
    /// non-blocking for all processes. Do not make it blocking while a server accepts from it.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `NotConnected` if the server is closed, and the error of a
    /// duplication that fails. Returns an error of kind `Unsupported` in a child that was forked
    /// while the server served.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let old = ThreadingTCPServer::builder(handler_fn(|_| Ok(()))).bind(("127.0.0.1", 0))?;
    /// let new = ThreadingTCPServer::builder(handler_fn(|_| Ok(()))).adopt(old.handle().listeners()?)?;
    /// assert_eq!(old.server_address(), new.server_address());
    /// // As soon as `new` serves:
    /// old.handle().release_listeners()?;
    /// old.drain(Duration::from_secs(10))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn listeners(&self) -> io::Result<Vec<Socket>> {
        self.take_over()?;
        let listeners = self.open_listeners();
        if listeners.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the server is closed"));
        }
        listeners.iter().map(|listener| listener.dup()).collect()
    }

    /// Leaves the listeners to the processes that have duplicates of them.
    ///
    /// Afterwards a drain stops accepting without shutdown(2). The clients in the accept queue and
    /// later ones are accepted by the other processes, so that none is refused or reset. The path of
    /// a Unix socket is not removed. This server goes on until it is stopped. The release cannot be
    /// reversed, and a second call has no effect.
    ///
    /// Without another process that has a duplicate, the clients in the accept queue are reset when
    /// this server is closed. Children of a forking server, and the workers of a prefork server, keep
    /// the listeners open until they have served their last request.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `NotConnected` if a drain has begun or the server is closed: the
    /// listeners may be shut down already. Returns an error of kind `Unsupported` in a child that
    /// was forked while the server served.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let builder = || TCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")));
    /// let old = builder().bind(("127.0.0.1", 0))?;
    /// let new = builder().adopt(old.handle().listeners()?)?;
    /// let client = sock::create_connection(("127.0.0.1", new.server_address().port().unwrap()))?;
    /// old.handle().release_listeners()?;
    /// old.drain(Duration::from_secs(10))?;
    /// drop(old);
    /// // The client in the queue is served by the new server.
    /// new.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn release_listeners(&self) -> io::Result<()> {
        self.take_over()?;
        if self.open_listeners().is_empty() || !self.share_listeners() {
            let sentence = "the listeners cannot be released: a drain has begun, or the server is closed";
            return Err(io::Error::new(io::ErrorKind::NotConnected, sentence));
        }
        self.paths().lock().iter().for_each(BoundPath::hand_over);
        Ok(())
    }

    /// Begins to accept. The process that has released the listeners uses them no more; `is_own` says
    /// whether others do.
    pub(crate) fn begin_accepting(&self, is_own: bool) {
        if is_own {
            self.own_listeners();
            self.paths().lock().iter().for_each(BoundPath::reclaim);
        }
        self.set_holds_accept(false);
        self.waker().wake();
    }

    /// Begins the lame duck before a drain that a duty has requested, and returns how long it still
    /// lasts. After a handover there is none.
    pub(crate) fn lame_duck_of_duties(&self) -> Option<Duration> {
        if matches!(self.handing(), Handing::Done(_)) { None } else { self.lame_duck_left() }
    }

    /// Drains without a lame duck, which would be for balancers: the address goes on to be served. Idle
    /// connections stay open for the time that was set with the handover.
    pub(super) fn drain_for_successor(&self, limit: Duration) -> io::Result<DrainReport> {
        // Otherwise `serve_forever` could return before the drain.
        let _announced = self.registry().announce_drain();
        self.begin_drain(limit, self.is_serving());
        self.drain(limit)
    }

    /// Sets the mode of blocking of the listeners again, which another process may have changed.
    pub(crate) fn restore_blocking(&self) {
        for listener in self.open_listeners() {
            // It fails for no open socket.
            let _ = listener.setblocking(listener.getblocking());
        }
    }
}
