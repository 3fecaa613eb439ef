//! Stands in for `proxy_protocol.rs` without the feature `proxy-protocol`. No value of
//! [`ProxyProtocol`] exists.

use std::io;
use std::time::Duration;

use sock::Address;

use crate::request::RequestError;
use crate::request::serve::{JobState, Progress, Wait};

#[derive(Debug)]
pub(crate) enum ProxyProtocol {}

impl ProxyProtocol {
    pub(crate) fn check_options(&self) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn check(&self, _: &[Address]) -> io::Result<Duration> {
        match *self {}
    }
}

/// Not a state.
pub(crate) enum HeaderReader {}

impl JobState {
    pub(super) fn receive_proxy_header(&mut self, _: Wait) -> Result<Option<Progress>, RequestError> {
        Ok(None)
    }

    pub(crate) fn is_from_trusted_network(&mut self) -> bool {
        true
    }
}
