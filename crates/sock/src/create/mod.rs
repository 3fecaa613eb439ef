//! Sockets made in one call: clients, listeners, pairs.

pub(crate) mod create_connection;
pub(crate) mod create_server;
