//! The side of a handover that takes the listeners over.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sock::{AF_UNIX, Address, SOCK_STREAM, Socket};

use crate::lifecycle::duty::{Duty, Next};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::handover::offering::ControlSocket;
use crate::lifecycle::handover::protocol::{self, HELLO, LineReader, READY, REFUSED, RELEASED};
use crate::os::bound_path::{BoundPath, DirEntry, FileId};
use crate::os::exec;

/// The longest timeout of a socket, 136 years: `settimeout` refuses one of millions of years.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// What a predecessor has offered.
pub(crate) struct Received {
    pub(crate) listeners: Vec<Socket>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) files: Vec<Option<FileId>>,
    /// The control socket of the predecessor, and its file.
    pub(crate) control: Option<(Socket, Option<FileId>)>,
    pub(crate) takeover: Takeover,
}

/// The rest of the handover, from `ready` on.
pub(crate) struct Takeover {
    peer: Arc<Socket>,
    reader: LineReader,
    is_own: bool,
    is_over: bool,
    /// `ready` could not be sent.
    failed: Option<io::Error>,
}

/// Connects to the predecessor at `path` and receives its listeners. Returns `None` if there is no
/// predecessor.
pub(crate) fn connect(path: &Path, timeout: Duration) -> io::Result<Option<Received>> {
    let due = Instant::now().checked_add(timeout);
    let peer = Socket::new(AF_UNIX, SOCK_STREAM, 0)?;
    peer.settimeout(timeout.min(LONGEST))?;
    match peer.connect(path) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
        {
            return Ok(None);
        }
        connected => connected?,
    }
    // A socket with a timeout would wait in each call.
    peer.setblocking(false)?;
    match protocol::send(&peer, HELLO, &[]) {
        // It has refused, and its reason can be received.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        sent => sent?,
    }
    let (offer, fds) = protocol::receive_offer(&peer, due)?;
    let sockets = fds.into_iter().map(|fd| Socket::from_fd(fd, None, None, None));
    let mut sockets = sockets.collect::<Result<Vec<_>, _>>()?;
    let mut files = offer.files;
    if sockets.len() != files.len() || sockets.len() < 2 {
        let sentence = format!("{} listeners were offered, {} received", files.len(), sockets.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
    }
    let control = sockets.pop().zip(files.pop());
    let addresses = sockets.iter().map(Socket::getsockname).collect::<io::Result<_>>()?;
    let takeover = Takeover::new(peer, offer.is_own);
    Ok(Some(Received { listeners: sockets, addresses, files, control, takeover }))
}

/// Receives what this process has inherited from its parent, which serves. Returns `None` if it has
/// inherited nothing.
pub(crate) fn from_environment(timeout: Duration) -> io::Result<Option<Received>> {
    let Some((fds, peer)) = exec::inherited()? else { return Ok(None) };
    let peer = Socket::from_fd(peer, None, None, None)?;
    peer.setblocking(false)?;
    let sockets = fds.into_iter().map(|fd| Socket::from_fd(fd, None, None, None));
    let listeners = sockets.collect::<Result<Vec<_>, _>>()?;
    let (offer, fds) = protocol::receive_offer(&peer, Instant::now().checked_add(timeout))?;
    let mut files = offer.files;
    if files.len() != listeners.len() + fds.len() {
        let sentence = format!("{} listeners were offered, {} inherited", files.len(), listeners.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
    }
    let control = fds.into_iter().next().map(|fd| Socket::from_fd(fd, None, None, None)).transpose()?;
    let file = if control.is_some() { files.pop() } else { None };
    let control = control.zip(file);
    let addresses = listeners.iter().map(Socket::getsockname).collect::<io::Result<_>>()?;
    let takeover = Takeover::new(peer, offer.is_own);
    Ok(Some(Received { listeners, addresses, files, control, takeover }))
}

impl Takeover {
    pub(crate) fn new(peer: Socket, is_own: bool) -> Takeover {
        Takeover {
            peer: Arc::new(peer),
            reader: LineReader::default(),
            is_own,
            is_over: false,
            failed: None,
        }
    }

    /// Returns whether the predecessor has released the listeners.
    fn is_released(&mut self) -> io::Result<bool> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        match self.reader.receive(&self.peer) {
            Ok(None) => Ok(false),
            Ok(Some(line)) if line == RELEASED => Ok(true),
            Ok(Some(line)) => Err(protocol::refused(line.strip_prefix(REFUSED).unwrap_or(&line))),
            // It refuses with a message, so it has died.
            Err(error) if is_end(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

impl Duty for Takeover {
    fn waits_for(&self, sockets: &mut Vec<Arc<Socket>>) -> Option<Instant> {
        if !self.is_over {
            sockets.push(Arc::clone(&self.peer));
        }
        None
    }

    fn run(&mut self, server: &ServerHandle) -> Next {
        if self.is_over {
            return Next::Continue;
        }
        match self.is_released() {
            Ok(false) => Next::Continue,
            Ok(true) => {
                self.is_over = true;
                let count = server.open_listeners().len();
                log::info!(count = count; "the predecessor has released the listeners ({count})");
                server.begin_accepting(self.is_own);
                Next::Continue
            }
            Err(error) => {
                self.is_over = true;
                Next::Fail(error)
            }
        }
    }

    fn ready(&mut self, _server: &ServerHandle) {
        self.failed = protocol::send(&self.peer, READY, &[]).err().filter(|error| {
            // The predecessor may have died, or refused, which `run` finds out.
            !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        });
    }
}

/// Makes the path of a listener one that this process removes, as soon as it is released.
pub(crate) fn adopt_path(address: &Address, file: Option<FileId>) -> io::Result<Option<BoundPath>> {
    let (Some(file), Some(entry)) = (file, DirEntry::of(address)?) else { return Ok(None) };
    Ok(Some(entry.adopted(file)?))
}

/// Makes the control socket of the predecessor that of this process.
pub(crate) fn adopt_control(socket: Socket, file: Option<FileId>) -> io::Result<ControlSocket> {
    let path = adopt_path(&socket.getsockname()?, file)?;
    // It may have the default timeout of this program.
    socket.setblocking(false)?;
    Ok(ControlSocket { path, socket: Arc::new(socket) })
}
