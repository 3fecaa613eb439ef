//! What every call has: a deadline, cancellation, a line in the trace.

pub(crate) mod cancel;
pub(crate) mod deadline;
pub(crate) mod to_timeout;
pub(crate) mod trace;
