//! The messages of a handover.

use std::io::{self, IoSlice};
use std::time::Instant;

use sock::{AsFd, BorrowedFd, MSG_DONTWAIT, OwnedFd, POLLIN, Poll, Socket};

use crate::os::bound_path::FileId;

/// The first message. Another version of the protocol has another number.
pub(crate) const HELLO: &str = "sockserver-handover 1";
pub(crate) const READY: &str = "ready";
pub(crate) const RELEASED: &str = "released";
pub(crate) const REFUSED: &str = "refused ";

/// How many listeners can be handed over. `SCM_MAX_FD` of Linux is 253.
pub(crate) const MAX_LISTENERS: usize = 128;

/// The longest line, and the longest offer.
const MAX_LINE: usize = 200;
const MAX_OFFER: usize = MAX_LINE * (MAX_LISTENERS + 2);

/// What the predecessor offers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Whether the listeners are used by the two processes only.
    pub(crate) is_own: bool,
    /// The files of the paths of the listeners, and last that of the control socket.
    pub(crate) files: Vec<Option<FileId>>,
}

impl Offer {
    pub(crate) fn encode(&self) -> String {
        let own = if self.is_own { "own" } else { "shared" };
        let mut text = format!("offer {} {own}\n", self.files.len());
        for file in &self.files {
            match file {
                Some(FileId(device, inode)) => text += &format!("{device} {inode}\n"),
                None => text += "-\n",
            }
        }
        text
    }

    /// Decodes an offer. Returns `None` if it is incomplete.
    fn decode(text: &str) -> io::Result<Option<Offer>> {
        let Some((first, rest)) = text.split_once('\n') else { return Ok(None) };
        if let Some(reason) = first.strip_prefix(REFUSED) {
            return Err(refused(reason));
        }
        let words: Vec<_> = first.split(' ').collect();
        let (count, is_own) = match words[..] {
            ["offer", count, "own"] => (count, true),
            ["offer", count, "shared"] => (count, false),
            _ => return Err(garbage(first)),
        };
        let count = count.parse().ok().filter(|count| (1..=MAX_LISTENERS + 1).contains(count));
        let count: usize = count.ok_or_else(|| garbage(first))?;
        if rest.matches('\n').count() < count {
            return Ok(None);
        }
        let files = rest.lines().map(|line| match line.split_once(' ') {
            None if line == "-" => Ok(None),
            Some((device, inode)) => match (device.parse(), inode.parse()) {
                (Ok(device), Ok(inode)) => Ok(Some(FileId(device, inode))),
                _ => Err(garbage(line)),
            },
            None => Err(garbage(line)),
        });
        let files = files.collect::<io::Result<Vec<_>>>()?;
        if files.len() != count { Err(garbage(rest)) } else { Ok(Some(Offer { is_own, files })) }
    }
}

pub(crate) fn refused(reason: &str) -> io::Error {
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect();
    io::Error::new(io::ErrorKind::ConnectionRefused, format!("the handover was refused: {reason}"))
}

fn garbage(text: &str) -> io::Error {
    let text: String = text.chars().take(40).collect();
    io::Error::new(io::ErrorKind::InvalidData, format!("unknown message in a handover: {text:?}"))
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the other process has ended the handover")
}

/// Sends a line, without waiting.
pub(crate) fn send(peer: &Socket, line: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = format!("{line}\n");
    let buffers = [IoSlice::new(text.as_bytes())];
    let sent = match fds {
        [] => peer.send_with_flags(text.as_bytes(), MSG_DONTWAIT)?,
        fds => peer.send_fds_with_flags(&buffers, fds, MSG_DONTWAIT)?,
    };
    if sent == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Collects one line.
#[derive(Default)]
pub(crate) struct LineReader(Vec<u8>);

impl LineReader {
    /// Receives without waiting. Returns `None` if the line is incomplete.
    ///
    /// # Errors
    ///
    /// Returns an error at the end of the connection, and if there is more than a line.
    pub(crate) fn receive(&mut self, peer: &Socket) -> io::Result<Option<String>> {
        loop {
            match peer.recv_with_flags(MAX_LINE, MSG_DONTWAIT) {
                Ok(data) if data.is_empty() => return Err(ended()),
                Ok(data) => self.0.extend(data),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
                Err(error) => return Err(error),
            }
            match self.0.iter().position(|byte| *byte == b'\n') {
                Some(end) if end + 1 == self.0.len() => {
                    let line = std::mem::take(&mut self.0);
                    return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
                }
                None if self.0.len() < MAX_LINE => {}
                _ => return Err(garbage(&String::from_utf8_lossy(&self.0))),
            }
        }
    }
}

/// Returns the error of a connection that the peer has closed, or on which it has sent anything.
pub(crate) fn check_silent(peer: &Socket) -> io::Result<()> {
    match LineReader::default().receive(peer)? {
        None => Ok(()),
        Some(line) => Err(garbage(&line)),
    }
}

/// Waits for the offer until `due`, if that is not too far away.
pub(crate) fn receive_offer(peer: &Socket, due: Option<Instant>) -> io::Result<(Offer, Vec<OwnedFd>)> {
    let (mut text, mut fds) = (Vec::new(), Vec::new());
    loop {
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        if sock::poll(&mut [Poll::new(peer, POLLIN)], left)? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no offer of listeners has arrived"));
        }
        let received = match peer.recv_fds(MAX_OFFER, MAX_LISTENERS + 1) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            received => received?,
        };
        if received.data.is_empty() {
            return Err(ended());
        }
        text.extend(received.data);
        fds.extend(received.descriptors);
        let sentence = String::from_utf8_lossy(&text);
        if let Some(offer) = Offer::decode(&sentence)? {
            return Ok((offer, fds));
        }
        if text.len() >= MAX_OFFER || fds.len() > MAX_LISTENERS + 1 {
            return Err(garbage(&sentence));
        }
    }
}

/// Sends an offer with descriptors.
pub(crate) fn send_offer(peer: &Socket, offer: &Offer, sockets: &[Socket]) -> io::Result<()> {
    let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    send(peer, offer.encode().trim_end(), &fds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_decoded_as_it_was_encoded() {
        for is_own in [true, false] {
            let offer = Offer { is_own, files: vec![None, Some(FileId(7, u64::MAX)), None] };
            let text = offer.encode();
            assert_eq!(Offer::decode(&text).unwrap(), Some(offer));
            for end in 0..text.len() {
                assert!(Offer::decode(&text[..end]).unwrap().is_none(), "{end}");
            }
        }
    }

    #[test]
    fn a_message_that_is_no_offer_is_an_error() {
        let texts = [
            "refused busy\n",
            "\n",
            "offer\n",
            "offer 0 own\n",
            "offer 1 mine\n-\n",
            "offer 130 own\n-\n",
            "offer -1 own\n",
            "offer 1 own\n-\n-\n",
            "offer 1 own\n1\n",
            "offer 1 own\n1 x\n",
            "offer 1 own\n\n",
        ];
        for text in texts {
            assert!(Offer::decode(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_line_is_bounded_and_nothing_may_follow_it() {
        let (ours, theirs) = sock::socketpair().unwrap();
        let mut reader = LineReader::default();
        assert_eq!(reader.receive(&ours).unwrap(), None);
        theirs.sendall(b"rea").unwrap();
        assert_eq!(reader.receive(&ours).unwrap(), None);
        theirs.sendall(b"dy\n").unwrap();
        assert_eq!(reader.receive(&ours).unwrap().as_deref(), Some("ready"));
        theirs.sendall(b"ready\nready\n").unwrap();
        assert!(LineReader::default().receive(&ours).is_err());
        theirs.sendall(&[b'x'; MAX_LINE]).unwrap();
        assert!(LineReader::default().receive(&ours).is_err());
        drop(theirs);
        assert_eq!(reader.receive(&ours).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
