//! The options that exist on Unix only.

use sock::ToDuration;

use super::Builder;
use super::options::mixin_options;
use crate::accept::mixin::MixIn;
use crate::api::kind::{Datagram, Kind, Stream, Unix};
use crate::models::forking::ForkingMixIn;
use crate::models::prefork::PreforkMixIn;
use crate::models::selector::SelectorMixIn;
use crate::models::worker_class::WorkerClass;

/// Defines `unix_mode`, which both kinds of servers have.
macro_rules! unix_mode {
    ($($kind:ident)*) => {$(
        /// Options of servers with Unix sockets.
        impl<M: MixIn> Builder<$kind<Unix>, M> {
            /// Sets the permissions of the socket's path, such as `0o660`, up to `0o777`. By
            /// default they are `0o777` without the bits of the umask.
            ///
            /// The path is created with these permissions and never has more, not even between two
            /// system calls. The umask does not apply. A default ACL of the directory applies and
            /// may remove bits. With this option `bind` fails for an address without a path, and
            /// [`adopt`](Self::adopt) fails.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::fs;
            /// use std::os::unix::fs::PermissionsExt;
            /// use sockserver::{UnixStreamServer, handler_fn};
            ///
            /// # let folder = tempfile::tempdir()?;
            /// # let path = folder.path().join("echo.sock");
            /// let server = UnixStreamServer::builder(handler_fn(|_| Ok(()))).unix_mode(0o660).bind(&path)?;
            /// assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o660);
            /// # std::io::Result::Ok(())
            /// ```
            pub fn unix_mode(mut self, mode: u32) -> Self {
                self.options.unix_mode = Some(mode);
                self
            }
        }
    )*};
}

unix_mode! { Stream Datagram }

#[cfg(feature = "signals")]
impl<K: Kind> Builder<K, PreforkMixIn> {
    /// Manages the worker processes with signals, as gunicorn and nginx do.
    ///
    /// | signal | to | effect |
    /// | --- | --- | --- |
    /// | SIGHUP | the parent | calls [`reload`](crate::ServerHooks::reload), then replaces the workers one by one |
    /// | SIGTTIN | the parent | starts one more worker, up to 32 more than configured |
    /// | SIGTTOU | the parent | ends one worker, but not the last one |
    ///
    /// A new worker is started before the one that it replaces ends, unless there are as many as
    /// [`max_connections`](Self::max_connections). A worker that ends accepts no client any more and
    /// finishes its request, for up to the limit of
    /// [`drain_on_signals`](Self::drain_on_signals), or without it up to
    /// [`close_timeout`](Self::close_timeout). Clients in the accept queue are left to the other
    /// workers. If the new workers cannot start, the old ones go on.
    ///
    /// The signals are caught from `bind` until the server is closed, in the same way as those of
    /// `drain_on_signals`, which this option does not enable, and with which SIGTERM to a worker ends
    /// that worker. They are received while
    /// `serve_forever` runs.
    ///
    /// # Platform notes
    ///
    /// Needs the feature `signals`, which is enabled by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{PreforkTCPServer, handler_fn};
    ///
    /// let server = PreforkTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .workers(4)
    ///     .drain_on_signals(Duration::from_secs(30))
    ///     .manage_workers_on_signals()
    ///     .bind(("127.0.0.1", 0))?;
    /// // As soon as `server.serve_forever()` runs, `kill -HUP` of this process replaces the workers.
    /// assert!(server.mixin().worker_pids().is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn manage_workers_on_signals(mut self) -> Self {
        self.manages_workers = true;
        self
    }
}

mixin_options! {
    ForkingMixIn {
        /// Sets how many child processes may run at the same time. Default 40.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{ForkingTCPServer, handler_fn};
        ///
        /// let server = ForkingTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
        ///     .max_children(10)                                      // max_children = 10
        ///     .bind(("127.0.0.1", 0))?;
        /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.handle_request()?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// # std::io::Result::Ok(())
        /// ```
        max_children(max_children: usize);
        /// Sets whether closing the server waits for its children. Default true.
        ///
        /// # Examples
        ///
        /// ```
        /// use sockserver::{ForkingTCPServer, handler_fn};
        ///
        /// let server = ForkingTCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
        ///     .block_on_close(false)                                 // block_on_close = False
        ///     .bind(("127.0.0.1", 0))?;
        /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.handle_request()?;
        /// // This returns, although the child still waits for the client.
        /// server.server_close()?;
        /// client.sendall(b"!")?;
        /// # std::io::Result::Ok(())
        /// ```
        block_on_close(block_on_close: bool);
    }
    PreforkMixIn {
        /// Sets the number of worker processes.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{PreforkTCPServer, handler_fn};
        ///
        /// let server = PreforkTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
        ///     .workers(2)
        /// #     .poll_interval(std::time::Duration::from_millis(10))
        /// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
        ///     .bind(("127.0.0.1", 0))?;
        /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.serve_forever()?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// # std::io::Result::Ok(())
        /// ```
        workers(workers: usize);
        /// Sets after how many requests a worker is replaced, with a random variation.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{PreforkTCPServer, handler_fn};
        ///
        /// // Each worker exits after 1000 to 1100 requests, and a new one takes its place.
        /// let server = PreforkTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
        ///     .max_requests(1000, 100)
        /// #     .poll_interval(std::time::Duration::from_millis(10))
        /// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
        ///     .bind(("127.0.0.1", 0))?;
        /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.serve_forever()?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// # std::io::Result::Ok(())
        /// ```
        max_requests(max_requests: u64, jitter: u64);
        /// Sets how long a worker may go without a heartbeat before it is killed.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{PreforkTCPServer, handler_fn};
        ///
        /// let server = PreforkTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
        ///     .heartbeat(10)
        /// #     .poll_interval(0.01)
        /// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
        ///     .bind(("127.0.0.1", 0))?;
        /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.serve_forever()?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// # std::io::Result::Ok(())
        /// ```
        heartbeat(heartbeat: impl ToDuration);
        /// Sets how each worker serves its connections: one at a time, in threads, or with a selector.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{PreforkTCPServer, WorkerClass, handler_fn};
        ///
        /// let server = PreforkTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
        ///     .workers(2)
        ///     .worker_class(WorkerClass::Threads(4))                 // worker_class = "gthread"; threads = 4
        /// #     .poll_interval(std::time::Duration::from_millis(10))
        /// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
        ///     .bind(("127.0.0.1", 0))?;
        /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.serve_forever()?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// # std::io::Result::Ok(())
        /// ```
        worker_class(class: WorkerClass);
        /// Sets the largest number of threads of a worker with a selector.
        ///
        /// # Examples
        ///
        /// ```
        /// use sockserver::{PreforkTCPServer, WorkerClass, handler_fn};
        ///
        /// let builder = || PreforkTCPServer::builder(handler_fn(|_| Ok(()))).max_threads(64);
        /// let server = builder().worker_class(WorkerClass::Selector).bind(("127.0.0.1", 0))?;
        /// // One connection at a time needs no threads.
        /// let error = builder().bind(("127.0.0.1", 0)).unwrap_err();
        /// assert!(error.to_string().contains("max_threads needs worker_class"));
        /// # std::io::Result::Ok(())
        /// ```
        max_threads(threads: usize);
        /// Sets the stack size of each thread that serves requests, in bytes.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{PreforkTCPServer, WorkerClass, handler_fn};
        ///
        /// let server = PreforkTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
        ///     .worker_class(WorkerClass::Threads(4))
        ///     .stack_size(256 << 10)                                 // threading.stack_size(256 << 10)
        /// #     .poll_interval(std::time::Duration::from_millis(10))
        /// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
        ///     .bind(("127.0.0.1", 0))?;
        /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.serve_forever()?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// # std::io::Result::Ok(())
        /// ```
        stack_size(bytes: usize);
        /// Sets the name of each thread that serves requests. Default `sockserver`.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{PreforkTCPServer, WorkerClass, handler_fn};
        ///
        /// let name = handler_fn(|cx| write!(cx.wfile, "{}", std::thread::current().name().unwrap_or("?")));
        /// let server = PreforkTCPServer::builder(name)
        ///     .worker_class(WorkerClass::Threads(4))
        ///     .thread_name("worker")
        /// #     .poll_interval(std::time::Duration::from_millis(10))
        /// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
        ///     .bind(("127.0.0.1", 0))?;
        /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.serve_forever()?;
        /// assert_eq!(client.recv(100)?, b"worker");
        /// # std::io::Result::Ok(())
        /// ```
        thread_name(name: impl Into<String>);
        /// Sets a function that each thread that serves requests calls before its first request.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use std::sync::atomic::{AtomicBool, Ordering};
        /// use sockserver::{PreforkTCPServer, WorkerClass, handler_fn};
        ///
        /// static STARTED: AtomicBool = AtomicBool::new(false);
        ///
        /// let server = PreforkTCPServer::builder(handler_fn(|cx| write!(cx.wfile, "{STARTED:?}")))
        ///     .worker_class(WorkerClass::Threads(4))
        ///     .on_thread_start(|| STARTED.store(true, Ordering::Release))
        /// #     .poll_interval(std::time::Duration::from_millis(10))
        /// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
        ///     .bind(("127.0.0.1", 0))?;
        /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.serve_forever()?;
        /// assert_eq!(client.recv(100)?, b"true");
        /// # std::io::Result::Ok(())
        /// ```
        on_thread_start(f: impl Fn() + Send + Sync + 'static);
    }
    SelectorMixIn {
        /// Sets the number of worker threads.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{SelectorTCPServer, handler_fn};
        ///
        /// let echo = handler_fn(|cx| {
        ///     let line = cx.rfile.readline(100)?;
        ///     cx.close_connection = line.is_empty();
        ///     cx.wfile.write_all(&line)
        /// });
        /// let server = SelectorTCPServer::builder(echo).workers(2).bind(("127.0.0.1", 0))?;
        /// let port = server.server_address().port().unwrap();
        /// # let _running = sockserver::testing::serve(server);
        /// // Another thread runs `server.serve_forever()` now.
        /// let client = sock::create_connection(("127.0.0.1", port))?;
        /// client.sendall(b"hello\n")?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// # std::io::Result::Ok(())
        /// ```
        workers(workers: usize);
        /// Sets the largest number of worker threads, started while all others are blocked.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{SelectorTCPServer, handler_fn};
        ///
        /// // A second worker is started while the first one waits in its handler.
        /// let server = SelectorTCPServer::builder(handler_fn(|cx| {
        ///     let line = cx.rfile.readline(100)?;
        ///     cx.wfile.write_all(&line)
        /// }))
        /// .workers(1)
        /// .max_workers(2)
        /// .bind(("127.0.0.1", 0))?;
        /// let port = server.server_address().port().unwrap();
        /// # let _running = sockserver::testing::serve(server);
        /// // Another thread runs `server.serve_forever()` now.
        /// let slow = sock::create_connection(("127.0.0.1", port))?;
        /// slow.sendall(b"half a li")?;
        /// let client = sock::create_connection(("127.0.0.1", port))?;
        /// client.sendall(b"hello\n")?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// # std::io::Result::Ok(())
        /// ```
        max_workers(max_workers: usize);
        /// Sets the stack size of each thread that serves requests, in bytes.
        ///
        /// # Examples
        ///
        /// ```
        /// use sockserver::{SelectorTCPServer, handler_fn};
        ///
        /// let server = SelectorTCPServer::builder(handler_fn(|cx| cx.request.sendall(&cx.request.recv(100)?)))
        ///     .stack_size(256 << 10)                                 // threading.stack_size(256 << 10)
        ///     .bind(("127.0.0.1", 0))?;
        /// let port = server.server_address().port().unwrap();
        /// # let _running = sockserver::testing::serve(server);
        /// // Another thread runs `server.serve_forever()` now.
        /// let client = sock::create_connection(("127.0.0.1", port))?;
        /// client.sendall(b"hello\n")?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// # std::io::Result::Ok(())
        /// ```
        stack_size(bytes: usize);
        /// Sets the name of each thread that serves requests. Default `sockserver`.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{SelectorTCPServer, handler_fn};
        ///
        /// let name = handler_fn(|cx| {
        ///     cx.request.recv(1)?;
        ///     write!(cx.wfile, "{}", std::thread::current().name().unwrap_or("?"))
        /// });
        /// let server = SelectorTCPServer::builder(name).thread_name("worker").bind(("127.0.0.1", 0))?;
        /// let port = server.server_address().port().unwrap();
        /// # let _running = sockserver::testing::serve(server);
        /// // Another thread runs `server.serve_forever()` now.
        /// let client = sock::create_connection(("127.0.0.1", port))?;
        /// client.sendall(b"?")?;
        /// assert_eq!(client.recv(100)?, b"worker");
        /// # std::io::Result::Ok(())
        /// ```
        thread_name(name: impl Into<String>);
        /// Sets a function that each thread that serves requests calls before its first request.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::sync::atomic::{AtomicBool, Ordering};
        /// use sockserver::{SelectorTCPServer, handler_fn};
        ///
        /// static STARTED: AtomicBool = AtomicBool::new(false);
        ///
        /// let server = SelectorTCPServer::builder(handler_fn(|cx| cx.request.sendall(&cx.request.recv(100)?)))
        ///     .on_thread_start(|| STARTED.store(true, Ordering::Release))
        ///     .bind(("127.0.0.1", 0))?;
        /// let port = server.server_address().port().unwrap();
        /// # let _running = sockserver::testing::serve(server);
        /// // Another thread runs `server.serve_forever()` now.
        /// let client = sock::create_connection(("127.0.0.1", port))?;
        /// client.sendall(b"hello\n")?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// assert!(STARTED.load(Ordering::Acquire));
        /// # std::io::Result::Ok(())
        /// ```
        on_thread_start(f: impl Fn() + Send + Sync + 'static);
    }
}
