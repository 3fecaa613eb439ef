//! Datagrams as the kernel might send them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sockdiag::fuzz_invariants::netlink_datagram(bytes));
