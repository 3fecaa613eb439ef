//! A forked child and its parent: what they tell each other, and on which line.

#[cfg(unix)]
use std::{cell::RefCell, io, mem::ManuallyDrop, sync::Arc};

use sock::Socket;
#[cfg(unix)]
use sock::{MSG_DONTWAIT, MsgFlags, SHUT_WR, socketpair};

#[cfg(unix)]
use crate::os::process::{self, Pid};

/// What a child tells its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildMessage {
    /// `wrap_request` is done, and is the default.
    WrappedByDefault,
    /// `wrap_request` is done.
    Wrapped,
    /// There is nothing more to do.
    #[cfg(unix)]
    Exiting,
}

/// Between a server and all its children. A pair of sockets for each of them would be a
/// twentieth of what a child costs.
///
/// A child waits for room on it to say that its `wrap_request` is done, or it would be
/// killed for being late; that it ends may be lost, as by a child that is killed, and is
/// found without a word. The parent says one thing, by closing its half, as its own end does:
/// nothing more comes.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct ChildChannel {
    parent_end: Socket,
    child_end: Socket,
}

/// Bytes of a word on the line: the child's process id, and which word it is.
#[cfg(unix)]
const MESSAGE_SIZE: usize = 8;

#[cfg(unix)]
impl ChildChannel {
    pub(crate) fn new() -> io::Result<ChildChannel> {
        let (parents, childrens) = socketpair()?;
        Ok(ChildChannel { parent_end: parents, child_end: childrens })
    }

    /// The parent's end, which becomes readable when a child says something.
    pub(crate) fn parent_end(&self) -> &Socket {
        &self.parent_end
    }

    /// Takes what has been said and not been heard yet.
    pub(crate) fn drain_messages(&self, mut heard: impl FnMut(Pid, ChildMessage)) {
        // In a child both ends are the children's: see `enter_child`.
        if in_forked_child() {
            return;
        }
        let mut words = [0; 64 * MESSAGE_SIZE];
        while let Ok(received) = self.parent_end.recv_into_with_flags(&mut words, MSG_DONTWAIT) {
            for word in words[..received].chunks_exact(MESSAGE_SIZE) {
                let (pid, word) = word.split_at(MESSAGE_SIZE / 2);
                let pid = Pid::from_ne_bytes(pid.try_into().expect("half a word"));
                let known = [ChildMessage::WrappedByDefault, ChildMessage::Wrapped, ChildMessage::Exiting];
                if let Some(word) = known.into_iter().find(|known| *known as u8 == word[0]) {
                    heard(pid, word);
                }
            }
            if received < words.len() {
                return;
            }
        }
    }

    /// Tells the children that nothing more comes.
    pub(crate) fn close_for_children(&self) {
        if in_forked_child() {
            return;
        }
        let _ = self.parent_end.shutdown(SHUT_WR);
    }
}

/// Makes this process one that serves a single request, for a parent that watches its
/// deadlines and waits for its end.
#[cfg(unix)]
pub(crate) fn enter_child(line: Arc<ChildChannel>) {
    // A copy of the parent's end here would hide from the child that the parent has gone. The
    // number remains in use, since `line.parents`, and who borrows it, still has it.
    if let Err(error) = process::replace(&line.parent_end, &line.child_end) {
        log::error!("close the parent's end of the line: {error}");
    }
    CHANNEL.set(Some(ManuallyDrop::new(line)));
}

/// Whether this is one.
pub(crate) fn in_forked_child() -> bool {
    with_channel(|_| ()).is_some()
}

/// Calls it with the line to the parent, on which its end can be heard.
pub(crate) fn with_channel<T>(act: impl FnOnce(&Socket) -> T) -> Option<T> {
    #[cfg(unix)]
    return CHANNEL.with_borrow(|line| line.as_ref().map(|line| act(&line.child_end)));
    #[cfg(not(unix))]
    {
        let _ = act;
        None
    }
}

/// Tells the parent, if there is one.
pub(crate) fn send(word: ChildMessage) {
    #[cfg(unix)]
    with_channel(|line| {
        let mut bytes = [0; MESSAGE_SIZE];
        bytes[..MESSAGE_SIZE / 2].copy_from_slice(&std::process::id().to_ne_bytes());
        bytes[MESSAGE_SIZE / 2] = word as u8;
        let how = if word == ChildMessage::Exiting { MSG_DONTWAIT } else { MsgFlags::NONE };
        let _ = line.send_with_flags(&bytes, how);
    });
    #[cfg(not(unix))]
    let _ = word;
}

#[cfg(unix)]
thread_local! {
    /// Of a forked child's only worker. Open until the process ends.
    static CHANNEL: RefCell<Option<ManuallyDrop<Arc<ChildChannel>>>> = const { RefCell::new(None) };
}

#[cfg(all(test, unix))]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// In a thread of its own, which stands for a child, and tells when it has spoken.
    fn saying(line: &ChildChannel, word: ChildMessage) -> (thread::JoinHandle<()>, mpsc::Receiver<()>) {
        let line = ChildChannel {
            parent_end: line.parent_end.dup().unwrap(),
            child_end: line.child_end.dup().unwrap(),
        };
        let (told, spoken) = mpsc::channel();
        let child = thread::spawn(move || {
            CHANNEL.set(Some(ManuallyDrop::new(Arc::new(line))));
            send(word);
            drop(CHANNEL.take().map(ManuallyDrop::into_inner));
            told.send(()).unwrap();
        });
        (child, spoken)
    }

    fn say(line: &ChildChannel, word: ChildMessage) {
        let (child, _spoken) = saying(line, word);
        child.join().unwrap();
    }

    fn heard(line: &ChildChannel) -> Vec<(Pid, ChildMessage)> {
        let mut words = Vec::new();
        line.drain_messages(|pid, word| words.push((pid, word)));
        words
    }

    #[test]
    fn every_word_is_heard_once() {
        let line = ChildChannel::new().unwrap();
        let said =
            [ChildMessage::WrappedByDefault, ChildMessage::Wrapped, ChildMessage::Exiting].repeat(50);
        said.iter().for_each(|word| say(&line, *word));
        let own = std::process::id() as Pid;
        assert_eq!(heard(&line), said.iter().map(|word| (own, *word)).collect::<Vec<_>>());
        assert_eq!(heard(&line), []);
    }

    #[test]
    fn who_ends_does_not_wait_for_room() {
        let line = ChildChannel::new().unwrap();
        (0..2000).for_each(|_| say(&line, ChildMessage::Exiting));
        let heard = heard(&line);
        assert!((100..2000).contains(&heard.len()), "{} words fit", heard.len());
        assert!(heard.iter().all(|(_, word)| *word == ChildMessage::Exiting));
    }

    #[test]
    fn what_would_end_a_child_if_it_were_lost_waits_for_room() {
        let line = ChildChannel::new().unwrap();
        (0..2000).for_each(|_| say(&line, ChildMessage::Exiting));
        let (child, spoken) = saying(&line, ChildMessage::Wrapped);
        let early = spoken.recv_timeout(Duration::from_millis(100));
        assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout), "there is no room");
        let mut words = heard(&line);
        child.join().unwrap();
        words.extend(heard(&line));
        assert_eq!(words.last().map(|(_, word)| *word), Some(ChildMessage::Wrapped));
    }

    #[test]
    fn children_hear_that_nothing_more_comes_and_still_speak() {
        let line = ChildChannel::new().unwrap();
        line.close_for_children();
        assert_eq!(line.child_end.recv(1).unwrap(), b"");
        say(&line, ChildMessage::Exiting);
        assert_eq!(heard(&line).len(), 1);
    }
}
