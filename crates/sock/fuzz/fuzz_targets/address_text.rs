//! Addresses, as a user might give them: Unix names and numbers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sock::fuzz_invariants::address_text(bytes));
