//! Python's ssl.
#![forbid(unsafe_code)]

mod cert;
mod chain;
mod config;
mod context;
mod engine;
mod error;
mod failure;
mod inspect;
mod keylog;
mod names;
mod pem;
mod provider;
mod socket;
mod stats;
mod verify;
mod wire;
mod wrap;

pub use cert::{PeerCertificate, cert_time};
pub use context::{SSLContext, create_default_context};
pub use error::{
    ALERT_DESCRIPTION_ACCESS_DENIED, ALERT_DESCRIPTION_HANDSHAKE_FAILURE, ALERT_DESCRIPTION_INTERNAL_ERROR,
    ALERT_DESCRIPTION_UNRECOGNIZED_NAME, AlertDescription, Reason, SSLError,
};
pub use names::*;
pub use socket::SSLSocket;
pub use stats::SessionStats;
pub use wrap::WrapOptions;
