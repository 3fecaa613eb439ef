//! What every socket call shares: a deadline, cancellation, a trace line and hints.

pub(crate) mod cancel;
pub(crate) mod deadline;
pub(crate) mod hint;
pub(crate) mod timeout;
pub(crate) mod to_timeout;
pub(crate) mod trace;
