// The first definition of a link applies, so these replace those of the README.
#![cfg_attr(docsrs, doc = "[`sockserver`]: https://docs.rs/sockserver")]
#![cfg_attr(not(docsrs), doc = "[`sockserver`]: ../sockserver/index.html")]
#![cfg_attr(docsrs, doc = "[`sockssl`]: https://docs.rs/sockssl")]
#![cfg_attr(not(docsrs), doc = "[`sockssl`]: ../sockssl/index.html")]
#![cfg_attr(docsrs, doc = "[`socklens`]: https://docs.rs/socklens")]
#![cfg_attr(not(docsrs), doc = "[`socklens`]: ../socklens/index.html")]
#![cfg_attr(docsrs, doc = "[mini_ss]: https://docs.rs/crate/sockdiag/latest/source/examples/mini_ss.rs")]
#![cfg_attr(not(docsrs), doc = "[mini_ss]: ../../../crates/sockdiag/examples/mini_ss.rs")]
#![doc = "[`sock`]: sock\n[platforms]: sock::guide::platforms\n[MIT]: https://spdx.org/licenses/MIT.html\n[Apache-2.0]: https://spdx.org/licenses/Apache-2.0.html\n\n"]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg(target_os = "linux")]

mod deaths;
mod diag;
mod error;
mod filter;
#[cfg(any(test, fuzzing))]
pub mod fuzz_invariants;
mod netlink;
mod procfs;
mod request;
mod row;
mod unix;
mod wire;

pub use deaths::Deaths;
pub use diag::{Diag, Source};
pub use filter::{Filter, UnixFilter};
pub use row::{AcceptQueue, Protocol, Row, ShutdownState, SocketId, Timer, TimerKind};
pub use unix::{UnixFile, UnixRow};
