//! Texts of scenarios.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| socklens::fuzz_invariants::scenario(bytes));
