//! The process models: where requests run.

pub(crate) mod accept_worker;
#[cfg(unix)]
pub(crate) mod forking;
#[cfg(unix)]
pub(crate) mod idle_slab;
pub(crate) mod inline_datagram;
pub(crate) mod pool;
#[cfg(unix)]
pub(crate) mod prefork;
#[cfg(unix)]
mod prefork_crew;
#[cfg(unix)]
mod prefork_worker;
#[cfg(unix)]
mod respawn;
#[cfg(unix)]
pub(crate) mod selector;
pub(crate) mod sequential;
pub(crate) mod thread_options;
pub(crate) mod threading;
#[cfg(unix)]
pub(crate) mod worker_class;
#[cfg(unix)]
pub(crate) mod worker_exit;
pub(crate) mod worker_threads;
