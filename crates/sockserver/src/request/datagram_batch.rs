//! Datagrams by the batch: received with one call, and answered with one.

use std::cell::{Cell, RefCell};
use std::io;

use sock::{Address, Socket};
#[cfg(unix)]
use sock::{MSG_DONTWAIT, RecvBatch};

use crate::connection::datagram::DatagramBuf;
use crate::request::RequestError;
use crate::request::hooks::{ServerHooks, call_handle_error};

/// Datagrams that came together and wait for their turn.
#[derive(Default)]
pub(crate) struct DatagramReceiver {
    #[cfg(unix)]
    batch: Option<RecvBatch>,
    next: usize,
}

impl DatagramReceiver {
    /// The next datagram, from the batch or from the socket; it never waits.
    pub(crate) fn take(
        &mut self,
        socket: &Socket,
        max_packet_size: usize,
        max_batch: usize,
    ) -> io::Result<(DatagramBuf, Address)> {
        #[cfg(unix)]
        if max_batch > 1 {
            let batch = match &mut self.batch {
                Some(batch) => batch,
                none => none.insert(RecvBatch::new(max_batch, max_packet_size)?),
            };
            if self.next >= batch.len() {
                self.next = 0;
                socket.recvmmsg_with_flags(batch, MSG_DONTWAIT)?;
            }
            let datagram = batch.get(self.next).ok_or(io::ErrorKind::WouldBlock)?;
            self.next += 1;
            return DatagramBuf::receive(datagram.data().len(), |buffer| {
                buffer.copy_from_slice(datagram.data());
                Ok((buffer.len(), datagram.address()))
            });
        }
        #[cfg(not(unix))]
        let _ = max_batch;
        DatagramBuf::receive(max_packet_size, |buffer| socket.recvfrom_into_nowait(buffer))
    }

    /// Whether more datagrams of the batch wait.
    pub(crate) fn has_more(&self) -> bool {
        #[cfg(unix)]
        let len = self.batch.as_ref().map_or(0, RecvBatch::len);
        #[cfg(not(unix))]
        let len = 0;
        self.next < len
    }
}

type Answers = Vec<(Vec<u8>, Address)>;

thread_local! {
    /// Answers to be sent together, while the loop itself serves a batch.
    static ANSWERS: RefCell<Answers> = const { RefCell::new(Vec::new()) };
    static DEFERRING: Cell<bool> = const { Cell::new(false) };
}

/// Runs what serves one datagram of a batch: its answer waits for the others.
pub(crate) fn with_deferred_answers<T>(serve: impl FnOnce() -> T) -> T {
    DEFERRING.set(true);
    serve()
}

/// Keeps an answer for later, if this thread serves a batch.
pub(crate) fn defer_answer(answer: &mut Vec<u8>, client_address: &Address) -> bool {
    if !DEFERRING.get() {
        return false;
    }
    ANSWERS.with_borrow_mut(|answers| answers.push((std::mem::take(answer), client_address.clone())));
    true
}

/// Sends the answers of a batch. One that cannot be sent is its client's trouble
/// alone, and told.
pub(crate) fn flush(socket: &Socket, hooks: &dyn ServerHooks) {
    DEFERRING.set(false);
    let answers = ANSWERS.take();
    let mut rest = &answers[..];
    while !rest.is_empty() {
        let (sent, error) = send(socket, rest);
        rest = &rest[sent..];
        let Some((_, client_address)) = rest.first() else { return };
        let error = RequestError::Failed(error.unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
        call_handle_error(hooks, &error, client_address);
        rest = &rest[1..];
    }
}

#[cfg(unix)]
fn send(socket: &Socket, answers: &[(Vec<u8>, Address)]) -> (usize, Option<io::Error>) {
    match socket.sendmmsg(answers) {
        Ok(sent) => (sent.count, sent.error),
        Err(error) => (0, Some(error)),
    }
}

#[cfg(not(unix))]
fn send(socket: &Socket, answers: &[(Vec<u8>, Address)]) -> (usize, Option<io::Error>) {
    for (count, (answer, client_address)) in answers.iter().enumerate() {
        if let Err(error) = socket.sendto(answer, client_address) {
            return (count, Some(error));
        }
    }
    (answers.len(), None)
}
