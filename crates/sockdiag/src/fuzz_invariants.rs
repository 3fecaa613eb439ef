//! Invariants of the parsers, for any bytes.
//!
//! proptest checks them in the tests below, and the fuzz targets in `fuzz/` do with their own
//! inputs.
#![allow(missing_docs, reason = "no published build contains it")]

use sock::{AF_INET, AF_INET6};

use crate::netlink::Dump;
use crate::row::Protocol;
use crate::wire::{Attributes, Messages};
use crate::{procfs, row, unix};

/// A datagram as the kernel might send it. The first byte selects a TCP, UDP or Unix socket.
pub fn netlink_datagram(bytes: &[u8]) {
    let messages: Vec<_> = Messages::new(bytes).collect();
    let payload: usize = messages.iter().flatten().map(|message| message.payload.len()).sum();
    assert!(payload <= bytes.len(), "{payload} bytes of {}", bytes.len());
    let errors = messages.iter().filter(|message| message.is_err()).count();
    assert!(errors <= 1 && messages.iter().rev().skip(1).all(Result::is_ok), "it went on after an error");
    let sequence =
        messages.first().and_then(|message| message.as_ref().ok()).map_or(0, |message| message.seq);
    for message in messages.into_iter().flatten() {
        one_socket(message.payload);
    }
    let mut rows = 0;
    let dumped = Dump::new(sequence).read(Messages::new(bytes), |_| {
        rows += 1;
        Ok(())
    });
    assert!(rows <= bytes.len() / 16, "{rows} sockets in {} bytes: {dumped:?}", bytes.len());
    one_socket(bytes);
}

/// The structure of a socket, whole or damaged.
fn one_socket(payload: &[u8]) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        if let Ok(row) = row::parse(payload, protocol) {
            assert!(payload.len() >= 72);
            assert!(row.is(&row.id()), "a row is not itself");
            assert_eq!(row.local.is_ipv4(), row.family == AF_INET);
            // Nothing behind the structure changes what the structure says.
            let plain = row::parse(&payload[..72], protocol).expect("the structure was read");
            assert_eq!((plain.local, plain.state, plain.inode), (row.local, row.state, row.inode));
        }
    }
    if let Ok(row) = unix::parse(payload) {
        assert!(payload.len() >= 16);
        assert!(row.pending.len() * 4 <= payload.len());
        assert!(row.recv_queue.is_some() || row.accept_queue.is_none());
    }
    let attributes: usize = Attributes::new(payload).flatten().map(|(_, value)| value.len()).sum();
    assert!(attributes <= payload.len());
}

/// A line of `/proc/net`, whole or damaged.
pub fn procfs_line(bytes: &[u8]) {
    if let Some(row) = procfs::unix_row(bytes) {
        assert!(row.cookie.is_none() && row.memory.is_none());
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for family in [AF_INET, AF_INET6] {
            if let Some(row) = procfs::inet_row(text, protocol, family) {
                assert!(row.cookie.is_none() && row.info.is_none());
                assert_eq!((row.local.is_ipv4(), row.family), (family == AF_INET, family));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::filter::Filter;
    use crate::request;
    use crate::row::tests::fixed;
    use crate::wire::{message, push_attribute};

    fn config() -> ProptestConfig {
        // A failure shows its input; a file in the source tree is not needed.
        ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() }
    }

    /// A message that the kernel might send.
    fn socket() -> impl Strategy<Value = Vec<u8>> {
        let attributes = vec((0_u16..25, vec(any::<u8>(), 0..60)), 0..6);
        (any::<bool>(), 0_u8..14, 0_u8..6, attributes).prop_map(|(inet, state, timer, attributes)| {
            let mut bytes = fixed(state, timer);
            if !inet {
                bytes.truncate(16);
                bytes[0] = 1;
            }
            for (kind, value) in attributes {
                push_attribute(&mut bytes, kind, &value);
            }
            message(20, 2, 7, &bytes)
        })
    }

    fn filter() -> impl Strategy<Value = Filter> {
        let ports = || prop::option::of((990_u16..1010, 0_u16..20));
        let octets = prop::option::of((any::<[u8; 4]>(), 0_u8..=32));
        (ports(), prop::option::of(1990_u16..2010), octets, any::<bool>(), 0_u32..12).prop_map(
            |(local, either, network, near, interface)| {
                let mut filter = Filter::new();
                if let Some((first, more)) = local {
                    filter = filter.local_ports(first..=first + more);
                }
                if let Some(port) = either {
                    filter = filter.either_port(port);
                }
                if let Some((octets, length)) = network {
                    filter = filter.local_network(if near { [1, 2, 3, octets[3]] } else { octets }, length);
                }
                if interface > 6 { filter.interface(interface) } else { filter }
            },
        )
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..300)) {
            netlink_datagram(&bytes);
            procfs_line(&bytes);
        }

        /// Messages that are nearly valid reach further than random bytes.
        #[test]
        fn damaged_messages_are_read_without_a_panic(
            sockets in vec(socket(), 1..4),
            damage in vec((any::<Index>(), any::<u8>()), 0..4),
            end in any::<Index>(),
        ) {
            let mut bytes = sockets.concat();
            netlink_datagram(&bytes);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            netlink_datagram(&bytes);
            netlink_datagram(&bytes[..end.index(bytes.len())]);
        }

        #[test]
        fn a_message_that_was_cut_is_never_read_as_a_whole_one(one in socket(), end in any::<Index>()) {
            let end = end.index(one.len());
            let read: Vec<_> = Messages::new(&one[..end]).collect();
            // Up to three bytes at the end are padding.
            prop_assert!(read.iter().all(Result::is_err) || end + 4 > one.len(), "{read:?}");
        }

        #[test]
        fn damaged_lines_are_read_without_a_panic(
            columns in vec("[0-9A-Fa-f:]{0,9}|0100007F:0CEA|00000000:00000000", 8..14),
            noise in "[ -~é]{0,8}",
        ) {
            let line = format!("0: {} {noise}", columns.join(" "));
            procfs_line(line.as_bytes());
        }

        /// The program that the kernel runs and the filter for `/proc/net` agree.
        #[test]
        fn a_program_takes_what_the_filter_takes(filter in filter()) {
            let row = row::parse(&fixed(1, 0), Protocol::Tcp).unwrap();
            let program = request::program(&filter, true);
            prop_assert_eq!(request::tests::run(&program, &row), filter.matches(&row));
        }
    }
}
