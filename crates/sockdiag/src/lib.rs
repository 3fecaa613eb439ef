#![doc = include_str!("../README.md")]
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
