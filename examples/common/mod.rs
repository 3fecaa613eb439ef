//! The code that the examples share. It is in the package `sockssl`, because a package contains
//! only files of its own folder.

#[path = "../../crates/sockssl/examples/common/mod.rs"]
mod shared;

#[allow(unused_imports)] // Each program uses only a part.
pub(crate) use shared::*;
