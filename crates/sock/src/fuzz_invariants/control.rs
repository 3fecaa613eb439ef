//! Invariants of the parser of ancillary data. Unix only.

use crate::socket::message::cmsg::Ancillary;
use crate::sys;

/// Checks the parser of control buffers, as filled by recvmsg(2).
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::consts::*;
    use crate::fuzz_invariants::tests::config;
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
            (IPPROTO_IP, sys::IPV4_PKTINFO),
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
