//! The monotonic clock in milliseconds.

pub(crate) use platform::{RESOLUTION, milliseconds};

#[cfg(target_os = "linux")]
mod platform {
    /// How far the clock may lag behind, in milliseconds. A tick of the kernel is at most 10 ms.
    pub(crate) const RESOLUTION: u64 = 10;

    /// Returns the time of `CLOCK_MONOTONIC_COARSE`, which changes at each tick of the kernel only.
    pub(crate) fn milliseconds() -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the time is written during the call, which cannot fail for this clock.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
        time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::sync::OnceLock;
    use std::time::Instant;

    /// How far the clock may lag behind, in milliseconds.
    pub(crate) const RESOLUTION: u64 = 1;

    /// Returns the time since the first call.
    pub(crate) fn milliseconds() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_millis() as u64
    }
}
