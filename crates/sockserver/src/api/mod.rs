//! What users of the crate hold: servers, their builder and their classes.

pub(crate) mod builder;
pub(crate) mod classes;
pub(crate) mod server;
pub mod testing;
