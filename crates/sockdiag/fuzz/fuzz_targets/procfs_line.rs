//! Lines of the files in `/proc/net`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sockdiag::fuzz_invariants::procfs_line(bytes));
