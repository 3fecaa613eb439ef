//! The public types: servers, their builder, their kinds and their classes.

pub(crate) mod builder;
pub(crate) mod classes;
#[cfg(unix)]
pub mod handover;
pub mod kind;
pub(crate) mod server;
#[cfg(feature = "test-util")]
pub mod testing;
#[cfg(unix)]
pub(crate) mod unix_classes;
