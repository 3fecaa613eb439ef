//! Why a connection is refused that has to begin with a PROXY protocol header.

use std::fmt;

/// The reason why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HeaderError {
    /// The peer is not in a trusted network.
    Untrusted,
    /// The connection does not begin as a header.
    Missing,
    Malformed,
    TooLong,
    /// The checksum of version 2 is wrong.
    Checksum,
    Truncated,
    TimedOut,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeaderError::Untrusted => "it is not in a trusted network of the PROXY protocol",
            HeaderError::Missing => "it sent no PROXY protocol header",
            HeaderError::Malformed => "its PROXY protocol header is malformed",
            HeaderError::TooLong => "its PROXY protocol header is too long",
            HeaderError::Checksum => "the checksum of its PROXY protocol header is wrong",
            HeaderError::Truncated => "its PROXY protocol header is truncated",
            HeaderError::TimedOut => "its PROXY protocol header did not arrive in time",
        })
    }
}
