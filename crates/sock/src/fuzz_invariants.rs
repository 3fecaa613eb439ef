//! Invariants of the parsers, for any input.
//!
//! They are checked by proptest in the tests below, and by the fuzz targets in `fuzz/`, whose
//! builds include this module.
#![allow(missing_docs, reason = "released builds do not contain this module")]

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::address::{Address, ToAddress};
use crate::consts::{AF_INET, AF_INET6, AddressFamily};
use crate::netdb::inet::{inet_aton, inet_ntoa, inet_ntop, inet_pton};
#[cfg(unix)]
use crate::socket::cmsg::Ancillary;
use crate::sys;

/// Checks the parser of control buffers, as filled by recvmsg(2).
#[cfg(unix)]
pub fn control_data(bytes: &[u8]) {
    use sys::message::{Item, build, parse};

    let whole = |item: &Item| (item.level, item.kind, item.data.clone(), item.truncated);
    let items = parse(bytes);
    let read: usize = items.iter().map(|item| item.data.len()).sum();
    assert!(read <= bytes.len(), "{read} bytes of {}", bytes.len());
    let before_last = &items[..items.len().saturating_sub(1)];
    assert!(before_last.iter().all(|item| !item.truncated), "an item follows a truncated one");

    // Complete items can be encoded again and are parsed alike.
    let complete = || items.iter().filter(|item| !item.truncated);
    let control =
        build(complete().map(|item| (item.level, item.kind, &item.data[..]))).expect("they fit before");
    let again: Vec<_> = parse(control.bytes()).iter().map(whole).collect();
    assert_eq!(again, complete().map(whole).collect::<Vec<_>>());

    // A shorter buffer has the same items, except for the last.
    let cut = parse(&bytes[..bytes.len() / 2]);
    assert!(cut.len() <= items.len());
    for (index, (part, item)) in cut.iter().zip(&items).enumerate() {
        assert_eq!((part.level, part.kind), (item.level, item.kind));
        assert!(item.data.starts_with(&part.data));
        assert!(part.truncated || part.data == item.data, "a truncated item is not marked");
        assert!(index + 1 == cut.len() || whole(part) == whole(item));
    }

    for item in items {
        ancillary(&Ancillary::from(item));
    }
}

/// Checks that the typed readers do not panic, and that their results can be encoded.
#[cfg(unix)]
fn ancillary(item: &Ancillary<'_>) {
    assert!(item.descriptors().is_empty(), "parsing creates no descriptors");
    if let Some(info) = item.as_pktinfo() {
        let again = Ancillary::pktinfo(info);
        let read = again.as_pktinfo().expect("the item is valid");
        assert_eq!((again.kind(), again.level()), (item.kind(), item.level()));
        assert_eq!(read.local, info.local);
    }
    if let Some(tos) = item.as_tos() {
        assert_eq!([Ancillary::tos(tos).as_tos(), Ancillary::tclass(tos).as_tos()], [Some(tos); 2]);
    }
    if let Some(hops) = item.as_ttl() {
        assert_eq!(Ancillary::hoplimit(hops).as_ttl(), Some(hops));
    }
    if let Some(time) = item.as_timestamp() {
        assert!(time >= std::time::SystemTime::UNIX_EPOCH);
    }
    #[cfg(target_os = "linux")]
    {
        if let Some(credentials) = item.as_credentials().filter(|credentials| credentials.pid.is_some()) {
            assert_eq!(Ancillary::credentials(credentials).as_credentials(), Some(credentials));
        }
        let _ = item.as_rxq_ovfl();
    }
}

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
    #[cfg(unix)]
    {
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

    fn config() -> ProptestConfig {
        // A failure prints its input, so no file in the source tree is needed.
        ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() }
    }

    #[cfg(unix)]
    mod control {
        use proptest::sample::select;

        use super::*;
        use crate::consts::*;
        use crate::sys::c;
        use crate::sys::message::{build, parse};

        /// Items of known types, and others, with any bytes.
        fn item() -> impl Strategy<Value = (i32, i32, Vec<u8>)> {
            let known = select(vec![
                (SOL_SOCKET, SCM_RIGHTS),
                #[cfg(target_os = "linux")]
                (SOL_SOCKET, SCM_CREDENTIALS),
                (SOL_SOCKET, c::SO_TIMESTAMP),
                (IPPROTO_IP, c::IP_TOS),
                (IPPROTO_IP, c::IP_TTL),
                #[cfg(not(target_os = "freebsd"))]
                (IPPROTO_IP, c::IP_PKTINFO),
                (IPPROTO_IPV6, IPV6_PKTINFO),
                (IPPROTO_IPV6, IPV6_TCLASS),
                (IPPROTO_IPV6, IPV6_HOPLIMIT),
            ]);
            (prop_oneof![known, any::<(i32, i32)>()], vec(any::<u8>(), 0..33))
                .prop_map(|((level, kind), data)| (level, kind, data))
        }

        proptest! {
            #![proptest_config(config())]

            #[test]
            fn items_are_parsed_as_they_were_built(items in vec(item(), 0..6)) {
                let control = build(items.iter().map(|(level, kind, data)| (*level, *kind, &data[..]))).unwrap();
                let read: Vec<_> = parse(control.bytes())
                    .into_iter()
                    .map(|item| {
                        assert!(!item.truncated);
                        (item.level, item.kind, item.data)
                    })
                    .collect();
                prop_assert_eq!(read, items);
            }

            #[test]
            fn any_control_data_is_parsed_safely(bytes in vec(any::<u8>(), 0..200)) {
                control_data(&bytes);
            }

            /// Plausible lengths reach more of the parser than random ones.
            #[test]
            fn damaged_control_data_is_parsed_safely(
                items in vec(item(), 1..6),
                damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
                end in any::<prop::sample::Index>(),
            ) {
                let control = build(items.iter().map(|(level, kind, data)| (*level, *kind, &data[..]))).unwrap();
                let mut bytes = control.bytes().to_vec();
                for (at, byte) in damage {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                control_data(&bytes);
                control_data(&bytes[..end.index(bytes.len())]);
            }
        }
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
