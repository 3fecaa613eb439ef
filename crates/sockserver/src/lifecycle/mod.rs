//! The state of a whole server: its connections, deadlines, counters, and its stop.

pub(crate) mod accept_queue;
pub(crate) mod address_counts;
pub(crate) mod admin;
pub(crate) mod admission;
pub(crate) mod current_server;
pub(crate) mod deadline_timer;
pub(crate) mod duty;
pub(crate) mod gauges;
pub(crate) mod handle;
#[cfg(unix)]
pub(crate) mod handover;
pub(crate) mod keep_running;
#[cfg(feature = "metrics")]
pub(crate) mod metrics_reporter;
pub(crate) mod registry;
pub(crate) mod release;
pub(crate) mod scoreboard;
#[cfg_attr(not(all(unix, feature = "signals")), path = "signals_disabled.rs")]
pub(crate) mod signals;
pub(crate) mod state;
#[cfg(all(unix, feature = "systemd"))]
pub(crate) mod systemd;
