//! A TLS connection: handshake, records, close.

pub(crate) mod engine;
pub(crate) mod info;
pub(crate) mod record_io;
pub(crate) mod socket;
pub(crate) mod wrap;
