//! Packets as they come from the wire.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| socklens::fuzz_invariants::frame(bytes));
