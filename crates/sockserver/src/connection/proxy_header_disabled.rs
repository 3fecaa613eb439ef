//! Stands in for `proxy_header.rs` without the feature `proxy-protocol`. No value of
//! [`ProxyHeader`] exists.

/// Not a header.
pub(crate) enum ProxyHeader {}
