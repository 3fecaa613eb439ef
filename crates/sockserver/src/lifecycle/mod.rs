//! The state of a whole server: its connections, deadlines, counters, and its stop.

pub(crate) mod current_server;
pub(crate) mod deadline_timer;
pub(crate) mod handle;
pub(crate) mod registry;
pub(crate) mod scoreboard;
#[cfg_attr(not(all(unix, feature = "signals")), path = "signals_disabled.rs")]
pub(crate) mod signals;
