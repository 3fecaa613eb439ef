//! A fixed number of threads that run one task after the other.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

type Task = Box<dyn FnOnce() + Send>;

/// Threads that outlive the loops they work for. One that is still busy with a task of the last
/// loop takes a task of the next loop afterwards, so there are never more than configured.
#[derive(Default)]
pub(crate) struct WorkerThreads(Mutex<State>);

#[derive(Default)]
struct State {
    tasks: Option<(Sender<Task>, Receiver<Task>)>,
    running: Vec<JoinHandle<()>>,
}

impl WorkerThreads {
    /// Starts those of `count` threads that do not run yet.
    pub(crate) fn start(&self, count: usize) -> io::Result<()> {
        let mut state = self.0.lock();
        state.running.retain(|thread| !thread.is_finished());
        while state.running.len() < count {
            let (_, tasks) = state.tasks.get_or_insert_with(unbounded);
            let tasks = tasks.clone();
            let run = move || tasks.into_iter().for_each(|task| task());
            let thread = thread::Builder::new().name("sockserver".to_owned()).spawn(run)?;
            state.running.push(thread);
        }
        Ok(())
    }

    /// Has a thread run the task when one is free.
    pub(crate) fn run(&self, task: impl FnOnce() + Send + 'static) {
        if let Some((tasks, _)) = &self.0.lock().tasks {
            let _ = tasks.send(Box::new(task));
        }
    }

    /// Ends each thread when no task is left for it.
    pub(crate) fn close(&self) {
        self.0.lock().tasks = None;
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

    #[test]
    fn there_are_never_more_threads_than_wanted_and_no_task_is_lost() {
        const LIMIT: Duration = Duration::from_secs(20);
        let threads = WorkerThreads::default();
        let (ids, received) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        threads.start(2).unwrap();
        threads.run(move || {
            let _ = blocked.recv();
        });
        for _ in 0..10 {
            threads.start(2).unwrap();
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
