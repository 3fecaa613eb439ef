//! What every socket call shares: a deadline, cancellation and a trace line.

pub(crate) mod cancel;
pub(crate) mod deadline;
pub(crate) mod timeout;
pub(crate) mod to_timeout;
pub(crate) mod trace;
