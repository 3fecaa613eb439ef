//! A handover: one process leaves its listeners to another and drains when the other is ready.
//!
//! The messages go over a Unix stream socket. All of them are lines of ASCII text.
//!
//! | from | message | |
//! | --- | --- | --- |
//! | successor | `sockserver-handover 1` | the version |
//! | predecessor | `offer COUNT own` or `offer COUNT shared` | with the listeners as `SCM_RIGHTS`, and behind them the control socket; `shared` if other processes use the listeners too |
//! | | `DEVICE INODE` or `-` | for each listener and the control socket: the file of its path that has to be removed by its last server |
//! | successor | `ready` | its loop runs and is held before accept(2) |
//! | predecessor | `released` | its loop has ended; from here on the successor accepts |
//! | predecessor | `refused REASON` | instead of any of its messages |
//!
//! A new version that the predecessor has executed inherits the listeners and a connection, on which
//! the first message is the offer, with the control socket only.
//!
//! Everything before `ready` has no effect on the predecessor.

pub(crate) mod offering;
mod protocol;
pub(crate) mod takeover;
#[cfg_attr(not(feature = "signals"), path = "trigger_disabled.rs")]
pub(crate) mod trigger;
