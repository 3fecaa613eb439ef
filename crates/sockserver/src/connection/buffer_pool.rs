//! The read buffer that a worker lends to one connection after another.

use std::cell::Cell;

use sock::ReadBuffer;

thread_local! {
    static SPARE: Cell<ReadBuffer> = const { Cell::new(ReadBuffer::NONE) };
}

/// Makes this thread's spare buffer, so that the children it forks have it.
pub(crate) fn prewarm() {
    SPARE.set(ReadBuffer::new(sock::DEFAULT_BUFFER_SIZE));
}

/// The worker's buffer, or a new one; what is in it is old.
#[inline]
pub(crate) fn take_buffer(size: usize) -> ReadBuffer {
    let spare = SPARE.take();
    if spare.size() == size { spare } else { ReadBuffer::new(size) }
}

/// Gives the worker its buffer back, if it is one; what is in it, the next receive replaces.
#[inline]
pub(crate) fn recycle_buffer(buffer: ReadBuffer) {
    if buffer.size() > 0 {
        SPARE.set(buffer);
    }
}
