//! Invariants of the parsers, for any input.
//!
//! They are checked by proptest in the tests below, and by the fuzz targets in `fuzz/`, whose
//! builds include this module.
#![allow(missing_docs, reason = "released builds do not contain this module")]

#[cfg(unix)]
pub mod control;

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::address::{Address, ToAddress};
use crate::consts::{AF_INET, AF_INET6, AddressFamily};
use crate::netdb::inet::{inet_aton, inet_ntoa, inet_ntop, inet_pton};
use crate::sys;

/// Checks addresses as returned by a call: two bytes of family, then any bytes.
pub fn address_bytes(bytes: &[u8]) {
    let Some((family, rest)) = bytes.split_first_chunk() else {
        return;
    };
    let Some(raw) = sys::other_address(u16::from_ne_bytes(*family).into(), rest) else {
        return;
    };
    let address = Address::from_sys(&raw);
    assert_round_trip(&address);
}

/// Checks that an address can be converted for the system and back, or is refused.
fn assert_round_trip(address: &Address) {
    assert!(!address.to_string().is_empty());
    assert!(!format!("{address:?}").is_empty());
    assert_eq!(address.to_address(address.family()).expect("the family is its own"), *address);
    match address.to_sys() {
        Ok(raw) => assert_eq!(Address::from_sys(&raw), *address),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}"),
    }
}

/// Checks text as an address: a Unix name, a host, a number. Host names are left out, because they
/// would be looked up.
pub fn address_text(bytes: &[u8]) {
    if cfg!(unix) {
        let address = bytes.to_address(crate::consts::AF_UNIX).expect("any bytes are a Unix name");
        if cfg!(target_os = "linux") || bytes.first() != Some(&0) {
            assert_round_trip(&address);
        }
        assert!(bytes.to_address(AF_INET).is_err());
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if text.contains('\0') {
        let error = (text, 80).to_address(AF_INET).expect_err("no host has a NUL");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    if let Ok(packed) = inet_aton(text) {
        let standard = inet_ntoa(&packed).expect("there are four bytes");
        assert_eq!(inet_aton(&standard).expect("standard notation is accepted"), packed);
        assert_eq!(inet_pton(AF_INET, &standard).expect("standard notation is accepted"), packed);
    }
    for family in [AF_INET, AF_INET6] {
        number(family, text);
    }
}

/// Checks that a numeric host is parsed alike by all functions.
fn number(family: AddressFamily, text: &str) {
    let packed = inet_pton(family, text).ok();
    let std: Option<IpAddr> = text.parse().ok().filter(|ip: &IpAddr| ip.is_ipv4() == (family == AF_INET));
    let octets = std.map(|ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    });
    assert_eq!(packed, octets, "{text:?}");
    if let (Some(packed), Some(ip)) = (packed, std) {
        let standard = inet_ntop(family, &packed).expect("the length is right");
        assert_eq!(inet_pton(family, &standard).expect("standard notation is accepted"), packed);
        let address = (text, 80).to_address(family).expect("a number is not looked up");
        assert_eq!(address.to_socket_addr(), Some(SocketAddr::new(ip, 80)));
        assert_round_trip(&address);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    pub(super) fn config() -> ProptestConfig {
        // A failure prints its input, so no file in the source tree is needed.
        ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn any_address_is_converted_back_or_refused(family in 0_u16..50, rest in vec(any::<u8>(), 0..130)) {
            address_bytes(&[&family.to_ne_bytes()[..], &rest].concat());
        }

        #[test]
        fn any_text_is_an_address_or_refused(bytes in vec(any::<u8>(), 0..130), text in "[0-9a-fx:.% \0]{0,40}") {
            address_text(&bytes);
            address_text(text.as_bytes());
        }

        #[test]
        fn any_ip_address_survives_a_round_trip(ip in any::<IpAddr>(), port in any::<u16>(), flow in 0..0x10_0000_u32, scope in any::<u32>()) {
            address_text(ip.to_string().as_bytes());
            let family = if ip.is_ipv4() { AF_INET } else { AF_INET6 };
            assert_round_trip(&(ip, port).to_address(family).unwrap());
            if ip.is_ipv6() {
                assert_round_trip(&(ip, port, flow, scope).to_address(family).unwrap());
            }
        }

        #[test]
        fn a_port_is_used_exactly_or_refused(port in any::<i64>(), small in -10_i64..70_000) {
            for port in [port, small] {
                match ("127.0.0.1", port).to_address(AF_INET) {
                    Ok(address) => prop_assert_eq!(address.port().map(i64::from), Some(port)),
                    Err(error) => {
                        prop_assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
                        prop_assert!(!(0..=65_535).contains(&port));
                    }
                }
            }
        }
    }
}
