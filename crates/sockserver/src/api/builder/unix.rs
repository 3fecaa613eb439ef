//! The options that exist on Unix only.

use std::time::Duration;

use super::Builder;
use super::options::mixin_options;
use crate::accept::mixin::MixIn;
use crate::api::kind::{Datagram, Kind, Stream, Unix};
use crate::models::forking::ForkingMixIn;
use crate::models::prefork::PreforkMixIn;
use crate::models::selector::SelectorMixIn;

/// Defines `unix_mode`, which both kinds of servers have.
macro_rules! unix_mode {
    ($($kind:ident)*) => {$(
        /// Options of servers with Unix sockets.
        impl<M: MixIn> Builder<$kind<Unix>, M> {
            /// Sets the permissions of the socket's path, such as `0o660`. By default they are
            /// `0o777` without the bits of the umask.
            ///
            /// The path is created with these permissions and never has more, not even between two
            /// system calls. The umask does not apply. A default ACL of the directory applies and
            /// may remove bits. With this option `bind` fails for an address without a path, and
            /// [`adopt`](Self::adopt) fails.
            pub fn unix_mode(mut self, mode: u32) -> Self {
                self.options.unix_mode = Some(mode);
                self
            }
        }
    )*};
}

unix_mode! { Stream Datagram }

mixin_options! {
    ForkingMixIn {
        /// Sets how many child processes may run at the same time. Default 40.
        max_children(max_children: usize);
        /// Sets whether closing the server waits for its children. Default true.
        block_on_close(block_on_close: bool);
    }
    PreforkMixIn {
        /// Sets the number of worker processes.
        workers(workers: usize);
        /// Sets after how many requests a worker is replaced, with a random variation.
        max_requests(max_requests: u64, jitter: u64);
        /// Sets how long a worker may go without a heartbeat before it is killed.
        heartbeat(heartbeat: Duration);
    }
    SelectorMixIn {
        /// Sets the number of worker threads.
        workers(workers: usize);
        /// Sets the largest number of worker threads, started while all others are blocked.
        max_workers(max_workers: usize);
    }
}
