// The first definition of a link applies, so these replace those of the README.
#![cfg_attr(docsrs, doc = "[`sockserver`]: https://docs.rs/sockserver")]
#![cfg_attr(not(docsrs), doc = "[`sockserver`]: ../sockserver/index.html")]
#![cfg_attr(docsrs, doc = "[`sockssl`]: https://docs.rs/sockssl")]
#![cfg_attr(not(docsrs), doc = "[`sockssl`]: ../sockssl/index.html")]
#![doc = "[`sock`]: sock\n[`sockdiag`]: sockdiag\n[teaching]: sock::guide::teaching\n[MIT]: https://spdx.org/licenses/MIT.html\n[Apache-2.0]: https://spdx.org/licenses/Apache-2.0.html\n\n"]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg(target_os = "linux")]

mod builtin;
mod call;
pub mod cli;
mod command;
mod cpu;
mod end;
pub mod event;
mod export;
#[cfg(any(test, fuzzing))]
pub mod fuzz_invariants;
mod hint;
mod hub;
mod lab;
mod observe;
pub mod packet;
mod page;
pub mod record;
mod rtnl;
mod scenario;
mod serve;
mod sys;
mod text;
mod value;
mod watch;

pub use builtin::{BUILTIN, Builtin};
pub use lab::{Lab, Tier};
pub use scenario::{Failure, Options, ParseError, Report, Scenario, run};
