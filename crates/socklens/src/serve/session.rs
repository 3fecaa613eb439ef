//! The lesson that runs, and its recording so far.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::lab::Tier;
use crate::record::Object;
use crate::serve::{LESSON, WATCHED};

/// Pages that can be connected at once.
const PAGES: usize = 8;

/// For the server to notice that a page was closed.
const TIME_TO_CLOSE: Duration = Duration::from_secs(2);

/// For a lesson to remove its files. Then it is killed.
const TIME_TO_END: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Running {
    child: Child,
    /// Until the lesson has to end.
    input: Option<ChildStdin>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The lesson removes its files, and kills itself and its group.
        self.input = None;
        // The process group has the programs that the lesson has started.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Its number stays in use until `wait`.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let limit = Instant::now() + TIME_TO_END;
            while Instant::now() < limit && matches!(waitid(WaitId::Pid(group), options), Ok(None)) {
                thread::sleep(Duration::from_millis(1));
            }
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub(crate) struct State {
    /// Number of the run. A reset begins another one.
    pub(crate) run: u64,
    /// What runs: the source of a lesson.
    pub(crate) source: Option<String>,
    /// Lines of the recording.
    pub(crate) lines: Vec<String>,
    bytes: usize,
    running: Option<Running>,
    pages: usize,
    unused_since: Instant,
}

#[derive(Debug)]
pub(crate) struct Session {
    state: Mutex<State>,
    changed: Condvar,
    max_recording: usize,
    tier: Option<Tier>,
    /// The arguments of the process of programs.
    programs: Vec<String>,
}

/// Counts a connected page while it exists.
#[derive(Debug)]
pub(crate) struct Connected(Arc<Session>);

impl Drop for Connected {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.pages -= 1;
        state.unused_since = Instant::now();
        drop(state);
        self.0.changed.notify_all();
    }
}

/// Reads a line, and those that have arrived with it: the consequences of a call are written at once,
/// and a page draws them once. `None` at the end.
fn read_lines(output: &mut BufReader<impl Read>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if !matches!(output.read_line(&mut line), Ok(1..)) {
            return if lines.is_empty() { None } else { Some(lines) };
        }
        lines.push(line.trim_end().to_owned());
        // Reading on would wait.
        if !output.buffer().contains(&b'\n') {
            return Some(lines);
        }
    }
}

/// What a page receives next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Another run has begun, with the recording from its first line on.
    Run(u64, Option<String>),
    /// Lines of the recording, the first of which has this number.
    Lines(usize, Vec<String>),
    Nothing,
}

impl Session {
    pub(crate) fn new(max_recording: usize, tier: Option<Tier>, programs: Vec<String>) -> Session {
        Session {
            state: Mutex::new(State {
                // A page without an identity of its last event has run 0.
                run: 1,
                source: None,
                lines: Vec::new(),
                bytes: 0,
                running: None,
                pages: 0,
                unused_since: Instant::now(),
            }),
            changed: Condvar::new(),
            max_recording,
            tier,
            programs,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the lesson that runs, and starts another one.
    pub(crate) fn start(self: &Arc<Session>, source: &str) -> io::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        if source == WATCHED {
            command.arg(WATCHED).args(&self.programs);
        } else {
            command.arg(LESSON).arg(source).args(self.tier.map(|tier| tier.to_string()));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        let mut state = self.lock();
        state.running = None;
        let mut child = command.spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the process of the lesson has no pipes"));
        };
        state.run += 1;
        state.source = Some(source.to_owned());
        state.lines.clear();
        state.bytes = 0;
        state.unused_since = Instant::now();
        state.running = Some(Running { child, input: Some(input) });
        let run = state.run;
        drop(state);
        self.changed.notify_all();
        let session = self.clone();
        thread::Builder::new().name("recording".to_owned()).spawn(move || {
            let mut output = BufReader::new(output);
            while let Some(lines) = read_lines(&mut output) {
                if !session.put(run, lines) {
                    return;
                }
            }
            session.end(run, "The process of the lesson has ended. Reset starts it again.");
        })?;
        Ok(())
    }

    /// Adds lines to the recording. Returns false if nothing more is wanted.
    fn put(&self, run: u64, lines: Vec<String>) -> bool {
        let mut state = self.lock();
        if state.run != run {
            return false;
        }
        let mut is_full = false;
        for line in lines {
            state.bytes += line.len();
            is_full |= state.bytes > self.max_recording;
            if !is_full {
                state.lines.push(line);
            }
        }
        drop(state);
        self.changed.notify_all();
        if is_full {
            let limit = self.max_recording;
            self.end(
                run,
                &format!("The recording has reached its limit of {limit} bytes, and the lesson was ended."),
            );
        }
        !is_full
    }

    fn end(&self, run: u64, text: &str) {
        let mut state = self.lock();
        if state.run == run {
            let mut object = Object::new("end");
            object.text("text", text);
            state.lines.push(object.end());
            state.running = None;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Sends a command to the lesson. Returns false if none runs.
    pub(crate) fn command(&self, command: &str) -> bool {
        let mut state = self.lock();
        let Some(input) = state.running.as_mut().and_then(|running| running.input.as_mut()) else {
            return false;
        };
        writeln!(input, "{command}").and_then(|()| input.flush()).is_ok()
    }

    /// Starts the lesson again. Returns false if there was none.
    pub(crate) fn reset(self: &Arc<Session>) -> io::Result<bool> {
        let source = self.lock().source.clone();
        match source {
            Some(source) => self.start(&source).map(|()| true),
            None => Ok(false),
        }
    }

    pub(crate) fn end_if_unused(&self, limit: Duration) {
        let state = self.lock();
        let is_unused = state.running.is_some() && state.pages == 0 && state.unused_since.elapsed() > limit;
        let run = state.run;
        drop(state);
        if is_unused {
            self.end(run, "The lesson was ended because no page was connected. Reset starts it again.");
        }
    }

    /// Counts a page. If there are too many, it waits for one to close, which may be noticed late.
    /// Returns `None` if none closes.
    pub(crate) fn connect(self: &Arc<Session>) -> Option<Connected> {
        let end = Instant::now() + TIME_TO_CLOSE;
        let mut state = self.lock();
        while state.pages >= PAGES {
            let left = end.checked_duration_since(Instant::now())?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.pages += 1;
        Some(Connected(self.clone()))
    }

    /// Waits for what a page that has seen `next` lines of `run` does not have.
    pub(crate) fn wait(&self, run: u64, next: usize, limit: Duration) -> News {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if state.run != run || next > state.lines.len() {
                return News::Run(state.run, state.source.clone());
            }
            if state.lines.len() > next {
                return News::Lines(next, state.lines[next..].to_vec());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return News::Nothing;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_were_written_at_once_are_one_piece_of_news() {
        let mut input = BufReader::new(&b"one\ntwo\nthr"[..]);
        assert_eq!(read_lines(&mut input), Some(vec!["one".to_owned(), "two".to_owned()]));
        assert_eq!(read_lines(&mut input), Some(vec!["thr".to_owned()]));
        assert_eq!(read_lines(&mut input), None);
    }
}
