//! Functions that create connected sockets, listeners and pairs in one call.

pub(crate) mod create_connection;
pub(crate) mod create_server;
