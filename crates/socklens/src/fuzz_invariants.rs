//! Invariants of the parsers, which proptest and the fuzz targets share.

use crate::packet::{Numbers, Packet};
use crate::scenario::Scenario;

/// A packet as it comes from the wire: the parser reads no byte beyond its end, and every packet that
/// it accepts has a name, a text and relative numbers.
pub fn frame(bytes: &[u8]) {
    let mut numbers = Numbers::default();
    // The first packet of a connection sets where the numbers of the next begin.
    for part in [bytes, &bytes[..bytes.len() / 2], bytes] {
        let Some(mut packet) = Packet::parse(part) else { continue };
        assert!(packet.length <= part.len(), "{packet:?} has more payload than {} bytes", part.len());
        numbers.make_relative(&mut packet);
        assert!(!packet.to_string().is_empty() && !packet.name().is_empty());
        let repeats = packet.repeats(&packet);
        assert!(!repeats || packet.is("DATA") || packet.name().contains("SYN") || packet.is("FIN"));
        for name in ["SYN", "SYN+ACK", "DATA", "FIN", "UDP", "ICMP", "ACK", ""] {
            let _ = packet.is(name);
        }
    }
}

/// The text of a scenario: a mistake is in one of its lines, and is described in words.
pub fn scenario(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Scenario::parse("fuzz", &text) {
        Ok(scenario) => {
            assert_eq!(scenario.lines.len(), text.lines().count());
            let _ = (scenario.title(), scenario.needs_wire());
        }
        Err(error) => {
            assert!((1..=text.lines().count()).contains(&error.line), "{error}");
            assert!(!error.problem.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_frame_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            frame(&bytes);
        }

        /// The header of IPv4 with a protocol that the parser knows, and any rest.
        #[test]
        fn any_ipv4_packet_is_read_without_a_panic(
            protocol in prop::sample::select(vec![1_u8, 2, 6, 17]),
            words in 5_u8..8,
            mut bytes in prop::collection::vec(any::<u8>(), 20..100),
        ) {
            bytes[0] = 0x40 | words;
            let length = (bytes.len() as u16).to_be_bytes();
            bytes[2..4].copy_from_slice(&length);
            bytes[6..8].copy_from_slice(&[0, 0]);
            bytes[9] = protocol;
            frame(&bytes);
        }

        #[test]
        fn any_bytes_are_read_as_a_scenario_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            scenario(&bytes);
        }

        /// A scenario of the program in which bytes are replaced.
        #[test]
        fn a_changed_scenario_is_read_without_a_panic(
            builtin in prop::sample::select(crate::BUILTIN.to_vec()),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut bytes = builtin.text.as_bytes().to_vec();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            scenario(&bytes);
        }
    }
}
