//! Addresses, as a call might leave them: a family and what is behind it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sock::fuzz_invariants::address_bytes(bytes));
