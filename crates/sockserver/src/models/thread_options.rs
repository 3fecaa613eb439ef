//! The options of the threads that serve requests.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::lifecycle::current_server::ServingThread;
use crate::lifecycle::registry::Registry;
use crate::limits::log_limit::{LogKind, log_limited};
use crate::limits::ranges;
use crate::models::pool::ThreadPoolMixIn;
#[cfg(unix)]
use crate::models::prefork::PreforkMixIn;
#[cfg(unix)]
use crate::models::selector::SelectorMixIn;
use crate::models::threading::ThreadingMixIn;
use crate::os::guard::{discard, guard};

/// The options of the threads that serve requests.
#[derive(Clone, Default)]
pub(crate) struct ThreadOptions {
    stack_size: Option<usize>,
    name: Option<String>,
    on_start: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl ThreadOptions {
    /// Returns an error if the stack size is out of range.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.stack_size.map_or(Ok(()), |bytes| ranges::check("stack_size", bytes, &ranges::STACK_SIZE))
    }

    /// Returns the name of a setter that was called.
    pub(crate) fn first_set(&self) -> Option<&'static str> {
        let set = [
            ("stack_size", self.stack_size.is_some()),
            ("thread_name", self.name.is_some()),
            ("on_thread_start", self.on_start.is_some()),
        ];
        set.into_iter().find(|(_, is_set)| *is_set).map(|(setter, _)| setter)
    }

    pub(crate) fn set_stack_size(&mut self, bytes: usize) {
        self.stack_size = Some(bytes);
    }

    /// Sets the name. `std` panics if it contains a NUL.
    pub(crate) fn set_name(&mut self, name: String) {
        self.name = Some(name.replace('\0', ""));
    }

    pub(crate) fn set_on_start(&mut self, on_start: impl Fn() + Send + Sync + 'static) {
        self.on_start = Some(Arc::new(on_start));
    }

    /// Starts a thread of a server, which calls the hook first.
    pub(crate) fn spawn(
        &self,
        registry: &Arc<Registry>,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let name = self.name.as_deref().unwrap_or("sockserver");
        let mut builder = thread::Builder::new().name(name.to_owned());
        if let Some(bytes) = self.stack_size {
            builder = builder.stack_size(bytes);
        }
        let on_start = self.on_start.clone().map(|hook| (hook, Arc::clone(registry)));
        builder.spawn(move || {
            if let Some((hook, registry)) = on_start {
                // This thread serves next, so a drain that the hook calls would wait for it.
                let _serving = ServingThread::begin(&registry);
                call_on_start(&*hook);
                discard(hook);
            }
            run();
        })
    }
}

impl Drop for ThreadOptions {
    fn drop(&mut self) {
        // The hook is code of the user. The last thread may be its last owner.
        discard(self.on_start.take());
    }
}

/// Defines the setters of the mixins that have threads.
macro_rules! thread_setters {
    ($($(#[$cfg:meta])* $mixin:ident $($field:ident).+;)*) => {$(
        $(#[$cfg])*
        impl $mixin {
            /// Sets the stack size of each thread that serves requests in bytes, from 64 KiB to
            /// 1 GiB. By default that of `std`, which is 2 MiB or the value of the environment
            /// variable `RUST_MIN_STACK`. Python: `threading.stack_size`.
            ///
            /// Pages that are never used take no memory. A handler that needs more stack than
            /// there is ends the process. A size for which the system has no room makes the start
            /// of the thread fail.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::io::Write;
            /// use sockserver::{ThreadPoolMixIn, ThreadPoolTCPServer, handler_fn};
            ///
            /// let server = ThreadPoolTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
            ///     .mixin(ThreadPoolMixIn::new().stack_size(256 << 10))
            ///     .bind(("127.0.0.1", 0))?;
            /// let port = server.server_address().port().unwrap();
            /// # let _running = sockserver::testing::serve(server);
            /// // Another thread runs `server.serve_forever()` now.
            /// let client = sock::create_connection(("127.0.0.1", port))?;
            /// assert_eq!(client.recv(100)?, b"hello\n");
            /// # std::io::Result::Ok(())
            /// ```
            #[must_use]
            pub fn stack_size(mut self, bytes: usize) -> $mixin {
                self.$($field).+.set_stack_size(bytes);
                self
            }

            /// Sets the name of each thread that serves requests. Default `sockserver`. NUL
            /// characters are removed. Python: `threading.Thread(name=...)`.
            ///
            /// # Platform notes
            ///
            /// Linux shows the first 15 bytes, for example in `ps -L` and `top -H`.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::io::Write;
            /// use sockserver::{ThreadPoolMixIn, ThreadPoolTCPServer, handler_fn};
            ///
            /// let server = ThreadPoolTCPServer::builder(handler_fn(|cx| write!(cx.wfile, "{}", std::thread::current().name().unwrap_or("?"))))
            ///     .mixin(ThreadPoolMixIn::new().thread_name("worker"))
            ///     .bind(("127.0.0.1", 0))?;
            /// let port = server.server_address().port().unwrap();
            /// # let _running = sockserver::testing::serve(server);
            /// // Another thread runs `server.serve_forever()` now.
            /// let client = sock::create_connection(("127.0.0.1", port))?;
            /// assert_eq!(client.recv(100)?, b"worker");
            /// # std::io::Result::Ok(())
            /// ```
            #[must_use]
            pub fn thread_name(mut self, name: impl Into<String>) -> $mixin {
                self.$($field).+.set_name(name.into());
                self
            }

            /// Sets a function that each thread that serves requests calls before its first
            /// request, for example to set its priority or its processors. By default there is
            /// none.
            ///
            /// A panic in it is logged, and the thread serves requests nevertheless. A
            /// [`drain`](crate::ServerHandle::drain) in it fails with `Deadlock`. It is not
            /// called in a thread that calls [`handle_request`](crate::Server::handle_request) and
            /// serves the request itself. Worker processes have
            /// [`start_worker`](crate::ServerHooks::start_worker) too, which is called once. A
            /// pre-forked worker has such threads only with another
            /// `worker_class` than `WorkerClass::Sync`.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::io::Write;
            /// use sockserver::{ThreadPoolMixIn, ThreadPoolTCPServer, handler_fn};
            ///
            /// let server = ThreadPoolTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
            ///     .mixin(ThreadPoolMixIn::new().on_thread_start(|| println!("a thread started")))
            ///     .bind(("127.0.0.1", 0))?;
            /// let port = server.server_address().port().unwrap();
            /// # let _running = sockserver::testing::serve(server);
            /// // Another thread runs `server.serve_forever()` now.
            /// let client = sock::create_connection(("127.0.0.1", port))?;
            /// assert_eq!(client.recv(100)?, b"hello\n");
            /// # std::io::Result::Ok(())
            /// ```
            #[must_use]
            pub fn on_thread_start(mut self, f: impl Fn() + Send + Sync + 'static) -> $mixin {
                self.$($field).+.set_on_start(f);
                self
            }
        }
    )*};
}

thread_setters! {
    ThreadingMixIn options;
    ThreadPoolMixIn options;
    #[cfg(unix)]
    SelectorMixIn options;
    #[cfg(unix)]
    PreforkMixIn settings.options;
}

/// Calls the hook. A panic in it must not end the thread, which has a request already.
fn call_on_start(on_start: &dyn Fn()) {
    if let Err(message) = guard(on_start) {
        log_limited!(
            error, LogKind::Panicked, hook = "on_thread_start";
            "on_thread_start hook panicked: {message}"
        );
    }
}

impl fmt::Debug for ThreadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadOptions")
            .field("stack_size", &self.stack_size)
            .field("name", &self.name)
            .field("has_on_start", &self.on_start.is_some())
            .finish()
    }
}
