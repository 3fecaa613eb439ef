//! The documents of this project. They are a library so that every code block
//! is compiled and run as a doctest.

#[doc = include_str!("../README.md")]
pub mod readme {}

#[doc = include_str!("../crates/sock/README.md")]
pub mod readme_of_sock {}

#[doc = include_str!("../crates/sockserver/README.md")]
pub mod readme_of_sockserver {}

#[doc = include_str!("../crates/sockssl/README.md")]
pub mod readme_of_sockssl {}

#[doc = include_str!("porting.md")]
pub mod porting {}

#[doc = include_str!("differences.md")]
pub mod differences {}

#[cfg(unix)]
#[doc = include_str!("handover.md")]
pub mod handover {}

#[doc = include_str!("conformance.md")]
pub mod conformance {}

#[doc = include_str!("platforms.md")]
pub mod platforms {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("reliability.md")]
pub mod reliability {}

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("design.md")]
pub mod design {}

#[doc = include_str!("contributing.md")]
pub mod contributing {}

#[doc = include_str!("style.md")]
pub mod style {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("performance/figures.md")]
pub mod figures {}

#[doc = include_str!("changelog.md")]
pub mod changelog {}

#[doc = include_str!("teaching.md")]
pub mod teaching {}
