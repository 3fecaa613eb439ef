//! Scenarios: lines that call, decide what becomes of packets, and expect.

pub(crate) mod closest;
mod condition;
pub(crate) mod line;
pub(crate) mod parse;
mod run;

pub(crate) use line::Line;
pub use line::ParseError;
pub use parse::Scenario;
pub(crate) use run::run_paced;
pub use run::{Failure, Options, Report, run};
