//! From a listener to a job: the accept loop, and the mixin that it hands jobs to.

pub(crate) mod acceptor;
pub(crate) mod listener;
pub(crate) mod mixin;
