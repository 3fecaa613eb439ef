//! What the listeners, threads and processes of a server do at this moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sock::Address;

use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::state::ServerState;
use crate::limits::openmetrics::OpenMetrics;

/// A listener: its address, and the clients that wait in its accept queue.
///
/// See the example of [`ServerHandle::listener_stats`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStats {
    /// The address that it is bound to.
    pub address: Address,
    /// How many connections are complete and not accepted yet. Known for TCP listeners on Linux.
    pub accept_queue: Option<u32>,
    /// How many connections the queue has room for. Known for TCP listeners on Linux.
    pub backlog: Option<u32>,
}

/// The threads of this process, and the requests that wait for them.
///
/// See the example of [`ServerHandle::thread_stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadStats {
    /// Threads that serve requests, or wait for one.
    pub threads: usize,
    /// Those of them that serve a request. A thread that waits for the next request of its connection
    /// is one of them.
    pub busy: usize,
    /// Requests that were accepted and wait in the queue of a
    /// [`ThreadPoolMixIn`](crate::ThreadPoolMixIn).
    pub queued: usize,
    /// The length of this queue, `None` without one.
    pub queue_capacity: Option<usize>,
    /// Connections of a [`SelectorMixIn`](crate::SelectorMixIn) that wait without a thread.
    pub parked: usize,
}

/// A process that serves requests of the server: a pre-forked worker, or a forked child.
///
/// See the example of [`ServerHandle::worker_stats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// The process id.
    pub pid: u32,
    /// Connections and datagrams that it serves.
    pub in_flight: u64,
    /// Those of them that wait for their next request.
    pub idle: u64,
    /// Calls of `handle` that have returned: see [`Stats::requests`](crate::Stats::requests).
    pub requests: u64,
    /// How long ago it was started.
    pub age: Duration,
}

impl WorkerStats {
    /// Returns whether it serves a request.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ServerHandle, TCPServer, handler_fn};
    ///
    /// fn busy_workers(server: &ServerHandle) -> usize {
    ///     server.worker_stats().iter().filter(|worker| worker.is_busy()).count()
    /// }
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// assert_eq!(busy_workers(&server.handle()), 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.in_flight > self.idle
    }
}

/// Returns what the threads of a model do.
pub(crate) type ThreadGauges = dyn Fn() -> ThreadStats + Send + Sync;

/// Counts a thread as busy until it is dropped.
pub(crate) struct BusyThread<'a>(&'a AtomicUsize);

impl BusyThread<'_> {
    pub(crate) fn begin(busy: &AtomicUsize) -> BusyThread<'_> {
        busy.fetch_add(1, Ordering::Relaxed);
        BusyThread(busy)
    }
}

impl Drop for BusyThread<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ServerHandle {
    /// Returns the listeners of the server, also in its worker processes and forked children. None
    /// after the server was closed. System call: getsockopt(2) with `TCP_INFO` for each.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .request_queue_size(100)
    ///     .bind(("127.0.0.1", 0))?;
    /// let _waits = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// let listeners = server.handle().listener_stats();
    /// assert_eq!(&listeners[0].address, server.server_address());
    /// if cfg!(target_os = "linux") {
    ///     assert_eq!((listeners[0].accept_queue, listeners[0].backlog), (Some(1), Some(100)));
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn listener_stats(&self) -> Vec<ListenerStats> {
        let stats = self.observed_listeners().into_iter().filter_map(|listener| {
            let address = listener.getsockname().ok()?;
            let info = listener.tcp_info().ok();
            Some(ListenerStats {
                address,
                accept_queue: info.as_ref().and_then(|info| info.accept_queue),
                backlog: info.as_ref().and_then(|info| info.backlog),
            })
        });
        stats.collect()
    }

    /// Returns what the threads of this process do. `None` for a server that serves in its loop or in
    /// processes of their own, and before `serve_forever`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadPoolTCPServer, WhenQueueFull, handler_fn};
    ///
    /// let server = ThreadPoolTCPServer::builder(handler_fn(|cx| {
    ///     let threads = cx.server.thread_stats().unwrap();
    ///     cx.request.sendall(format!("{} of {}", threads.busy, threads.threads).as_bytes())
    /// }))
    /// .workers(4)
    /// .queue(100, WhenQueueFull::Wait)
    /// .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// # let _running = sockserver::testing::serve(server);
    /// // Another thread runs `server.serve_forever()` now.
    /// assert_eq!(client.recv(100)?, b"1 of 4");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn thread_stats(&self) -> Option<ThreadStats> {
        let gauges = self.registry().thread_gauges.lock().clone();
        gauges.map(|gauges| gauges())
    }

    /// Returns the processes that serve requests, in the server's process and in each of them. Empty
    /// for models without processes of their own.
    ///
    /// Of a [`ForkingMixIn`](crate::ForkingMixIn) with more than 1024 children only 1024 are returned.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use sockserver::{ForkingTCPServer, handler_fn};
    ///
    /// let server = ForkingTCPServer::new(("127.0.0.1", 0), handler_fn(|cx| cx.request.recv(1).map(drop)))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// let handle = server.handle();
    /// let workers = handle.worker_stats();
    /// assert!(workers.len() == 1 && workers[0].is_busy());
    /// client.sendall(b"!")?;
    /// server.server_close()?;
    /// assert!(handle.worker_stats().is_empty());
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn worker_stats(&self) -> Vec<WorkerStats> {
        self.registry().board().map_or_else(Vec::new, |board| board.worker_stats())
    }

    /// Returns all numbers of the server in the text format of OpenMetrics 1.0: those of
    /// [`Stats::to_openmetrics`](crate::Stats::to_openmetrics), and gauges of its state, listeners,
    /// threads and processes.
    ///
    /// In a worker process of a [`PreforkMixIn`](crate::PreforkMixIn) and in a child of a
    /// [`ForkingMixIn`](crate::ForkingMixIn) the numbers are those of the whole server.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let text = server.handle().to_openmetrics();
    /// assert!(text.contains("\nsockserver_ready 1\n") && text.ends_with("\n# EOF\n"));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn to_openmetrics(&self) -> String {
        let mut text = OpenMetrics::default();
        let ready = u64::from(self.state() == ServerState::Ready);
        text.family(
            "ready",
            "gauge",
            "1 while the server is ready, 0 once a stop has begun.",
            &[("", ready)],
        );
        self.stats().write_openmetrics(&mut text);
        write_listeners(&mut text, &self.listener_stats());
        if let Some(threads) = self.thread_stats() {
            write_threads(&mut text, &threads);
        }
        write_workers(&mut text, &self.worker_stats());
        text.finish()
    }
}

fn write_listeners(text: &mut OpenMetrics, listeners: &[ListenerStats]) {
    let mut gauge = |name: &str, help: &str, value: fn(&ListenerStats) -> Option<u32>| {
        let samples = listeners.iter().enumerate().filter_map(|(index, listener)| {
            let value = value(listener)?;
            Some((listener_labels(listeners, index), value.into()))
        });
        text.gauges(name, "", help, &samples.collect::<Vec<_>>());
    };
    gauge("listener_accept_queue", "Clients that wait to be accepted.", |listener| listener.accept_queue);
    gauge("listener_backlog", "Clients that can wait to be accepted.", |listener| listener.backlog);
}

/// Returns the address of a listener, and its number if another one has the same address
/// (`SO_REUSEPORT`). Two samples with the same labels are not allowed.
fn listener_labels(listeners: &[ListenerStats], index: usize) -> String {
    let address = &listeners[index].address;
    let label = label("address", &address.to_string());
    match listeners.iter().filter(|listener| listener.address == *address).count() {
        1 => label,
        _ => format!("{},listener=\"{}\"}}", &label[..label.len() - 1], index + 1),
    }
}

fn write_threads(text: &mut OpenMetrics, stats: &ThreadStats) {
    let ThreadStats { threads, busy, queued, queue_capacity, parked } = *stats;
    let mut gauge = |name: &str, help: &str, value: usize| {
        text.family(name, "gauge", help, &[("", value as u64)]);
    };
    gauge("threads", "Threads that serve requests or wait for one.", threads);
    gauge("busy_threads", "Threads that serve a request.", busy);
    if let Some(capacity) = queue_capacity {
        gauge("queue_length", "Requests that wait for a thread.", queued);
        gauge("queue_capacity", "Requests that can wait for a thread.", capacity);
    }
    gauge("parked", "Connections that wait for a request without a thread.", parked);
}

fn write_workers(text: &mut OpenMetrics, workers: &[WorkerStats]) {
    let mut gauge = |name: &str, unit: &str, help: &str, value: fn(&WorkerStats) -> u64| {
        let samples = workers.iter().map(|worker| (label("pid", &worker.pid.to_string()), value(worker)));
        text.gauges(name, unit, help, &samples.collect::<Vec<_>>());
    };
    gauge("worker_in_flight", "", "Connections and datagrams of a worker process.", |it| it.in_flight);
    gauge("worker_idle", "", "Connections of a worker process that wait for a request.", |it| it.idle);
    gauge("worker_requests", "", "Requests that a worker process has served.", |it| it.requests);
    gauge("worker_age_seconds", "seconds", "Time since a worker process was started.", |it| {
        it.age.as_secs()
    });
}

/// Returns a label in braces. The value is escaped.
fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{{name}=\"{value}\"}}")
}

/// Has a model return what its threads do.
pub(crate) fn set_thread_gauges(
    handle: &ServerHandle,
    gauges: impl Fn() -> ThreadStats + Send + Sync + 'static,
) {
    let former = handle.registry().thread_gauges.lock().replace(Arc::new(gauges));
    drop(former);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_with_one_address_have_different_labels() {
        let listener = |port| {
            let address = Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
            ListenerStats { address, accept_queue: Some(port.into()), backlog: None }
        };
        let mut text = OpenMetrics::default();
        write_listeners(&mut text, &[listener(1), listener(2), listener(1)]);
        let text = text.finish();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "sockserver_listener_accept_queue{address=\"127.0.0.1:1\",listener=\"1\"} 1",
                "sockserver_listener_accept_queue{address=\"127.0.0.1:2\"} 2",
                "sockserver_listener_accept_queue{address=\"127.0.0.1:1\",listener=\"3\"} 1",
            ]
        );
    }

    #[test]
    fn the_value_of_a_label_cannot_end_it() {
        assert_eq!(label("address", "a\"b\\c\nd"), "{address=\"a\\\"b\\\\c\\nd\"}");
    }
}
