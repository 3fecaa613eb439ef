//! Addresses, as a user might give them: Unix names and numbers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sock::properties::address_text(bytes));
