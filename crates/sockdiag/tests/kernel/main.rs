//! The promise: rows are what the kernel has, by netlink and by `/proc/net`, for every user.
#![cfg(target_os = "linux")]

mod common;
mod destroyed;
mod filters;
mod many;
mod peers;
mod refused;
mod rows;
mod states;
mod unix;
mod users;
