//! A fixed number of threads that run one task after the other.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use crate::lifecycle::keep_running::keep_running;
use crate::lifecycle::registry::Registry;
use crate::models::thread_options::ThreadOptions;

type Task = Box<dyn FnOnce() + Send>;

/// Threads that outlive the loops they work for. One that is still busy with a task of the last
/// loop takes a task of the next loop afterwards, so there are never more than configured.
///
/// The loop and the close of the server take the lock, and no worker. Under it threads are started,
/// and tasks are queued without waiting. No task runs or is dropped under it, and no thread is joined.
#[derive(Default)]
pub(crate) struct WorkerThreads(Mutex<State>);

#[derive(Default)]
struct State {
    tasks: Option<(Sender<Task>, Receiver<Task>)>,
    running: Vec<JoinHandle<()>>,
}

impl WorkerThreads {
    /// Starts those of `count` threads that do not run yet.
    pub(crate) fn start(
        &self,
        count: usize,
        options: &ThreadOptions,
        registry: &Arc<Registry>,
    ) -> io::Result<()> {
        let mut state = self.0.lock();
        state.running.retain(|thread| !thread.is_finished());
        while state.running.len() < count {
            let (_, tasks) = state.tasks.get_or_insert_with(unbounded);
            let tasks = tasks.clone();
            let run = move || keep_running(|| tasks.iter().for_each(|task| task()));
            state.running.push(options.spawn(registry, run)?);
        }
        Ok(())
    }

    /// Has a thread run the task when one is free.
    pub(crate) fn run(&self, task: impl FnOnce() + Send + 'static) {
        let tasks = self.0.lock().tasks.clone();
        if let Some((tasks, _)) = tasks {
            let _ = tasks.send(Box::new(task));
        }
    }

    /// Ends each thread when no task is left for it.
    pub(crate) fn close(&self) {
        let tasks = self.0.lock().tasks.take();
        drop(tasks);
    }

    /// Waits for the threads: for `all`, or for those that have ended.
    pub(crate) fn join(&self, all: bool) {
        let running = std::mem::take(&mut self.0.lock().running);
        for thread in running {
            // A handler that owns its server may close it: it cannot wait for itself.
            let own = thread.thread().id() == thread::current().id();
            if !own && (all || thread.is_finished()) {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::lifecycle::handle::ServerHandle;

    fn start(threads: &WorkerThreads, count: usize) -> io::Result<()> {
        let server = ServerHandle::with_defaults()?;
        threads.start(count, &ThreadOptions::default(), server.registry())
    }

    #[test]
    fn a_thread_whose_task_panics_takes_the_next_task() {
        let threads = WorkerThreads::default();
        let (send, received) = mpsc::channel();
        start(&threads, 1).unwrap();
        threads.run(|| panic!("planned"));
        threads.run(move || send.send(()).unwrap());
        received.recv_timeout(Duration::from_secs(20)).unwrap();
        threads.close();
        threads.join(true);
    }

    #[test]
    fn there_are_never_more_threads_than_wanted_and_no_task_is_lost() {
        const LIMIT: Duration = Duration::from_secs(20);
        let threads = WorkerThreads::default();
        let (ids, received) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        start(&threads, 2).unwrap();
        threads.run(move || {
            let _ = blocked.recv();
        });
        for _ in 0..10 {
            start(&threads, 2).unwrap();
            for _ in 0..2 {
                let ids = ids.clone();
                threads.run(move || {
                    let _ = ids.send(thread::current().id());
                });
            }
        }
        let ids: Vec<_> = (0..20).map(|_| received.recv_timeout(LIMIT).unwrap()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "the other one is busy");
        assert_eq!(threads.0.lock().running.len(), 2);
        threads.close();
        drop(release);
        threads.join(true);
    }
}
