//! A pool of one read buffer for each thread, used for one connection after another.

use std::cell::Cell;

use sock::ReadBuffer;

thread_local! {
    static SPARE: Cell<ReadBuffer> = const { Cell::new(ReadBuffer::NONE) };
}

/// Fills this thread's pool, so that the children it forks inherit the buffer.
pub(crate) fn prewarm() {
    SPARE.set(ReadBuffer::new(sock::DEFAULT_BUFFER_SIZE));
}

/// Takes the thread's buffer, or makes one. Its contents are undefined.
#[inline]
pub(crate) fn take_buffer(size: usize) -> ReadBuffer {
    let spare = SPARE.take();
    if spare.size() == size { spare } else { ReadBuffer::new(size) }
}

/// Returns a buffer to the thread's pool.
#[inline]
pub(crate) fn recycle_buffer(buffer: ReadBuffer) {
    if buffer.size() > 0 {
        SPARE.set(buffer);
    }
}
