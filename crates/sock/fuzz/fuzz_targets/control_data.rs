//! Ancillary data, as recvmsg(2) might leave it in a buffer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sock::fuzz_invariants::control::control_data(bytes));
