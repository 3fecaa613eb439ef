//! How the trace shows the value of an option: by the names of its fields, as strace(1) does.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::consts::{
    IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP, IP_MULTICAST_IF, IPPROTO_IP, IPPROTO_IPV6, IPV6_JOIN_GROUP,
    IPV6_LEAVE_GROUP, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO, SOL_SOCKET,
};
use crate::sys;

/// Bytes that are shown of a structure without known fields.
const SHOWN: usize = 32;

/// Displays a value: structures by their fields, an `int` or a byte as a number, anything else as
/// bytes.
pub(super) struct DisplayValue<'a> {
    pub(super) level: i32,
    pub(super) option: i32,
    pub(super) bytes: &'a [u8],
}

impl fmt::Display for DisplayValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fields) = self.fields() {
            return f.write_str(&fields);
        }
        match *self.bytes {
            [byte] => write!(f, "{byte}"),
            [a, b, c, d] => write!(f, "{}", i32::from_ne_bytes([a, b, c, d])),
            _ if self.bytes.len() > SHOWN => {
                write!(f, "{:02x?}... {} bytes", &self.bytes[..SHOWN], self.bytes.len())
            }
            _ => write!(f, "{:02x?}", self.bytes),
        }
    }
}

impl DisplayValue<'_> {
    fn fields(&self) -> Option<String> {
        let bytes = self.bytes;
        match (self.level, self.option) {
            (SOL_SOCKET, SO_LINGER) => {
                let (on, seconds) = sys::read_linger(bytes)?;
                Some(format!("{{l_onoff={}, l_linger={seconds}}}", u8::from(on)))
            }
            // Windows has a number of milliseconds.
            (SOL_SOCKET, SO_RCVTIMEO | SO_SNDTIMEO) if cfg!(unix) => {
                let time = sys::read_timeval(bytes)?;
                Some(format!("{{tv_sec={}, tv_usec={}}}", time.as_secs(), time.subsec_micros()))
            }
            (IPPROTO_IP, IP_ADD_MEMBERSHIP | IP_DROP_MEMBERSHIP) => {
                let (group, rest) = ipv4(bytes)?;
                let (interface, index) = ipv4(rest)?;
                let index = number(index).map_or(String::new(), |index| format!(", imr_ifindex={index}"));
                Some(format!("{{imr_multiaddr={group}, imr_interface={interface}{index}}}"))
            }
            (IPPROTO_IP, IP_MULTICAST_IF) => {
                Some(ipv4(bytes).filter(|(_, rest)| rest.is_empty())?.0.to_string())
            }
            (IPPROTO_IPV6, IPV6_JOIN_GROUP | IPV6_LEAVE_GROUP) => {
                let (group, index) = bytes.split_first_chunk::<16>()?;
                let (group, index) = (Ipv6Addr::from(*group), number(index)?);
                Some(format!("{{ipv6mr_multiaddr={group}, ipv6mr_interface={index}}}"))
            }
            #[cfg(target_os = "linux")]
            other => of_linux(other, bytes),
            #[cfg(not(target_os = "linux"))]
            _ => None,
        }
    }
}

#[cfg(target_os = "linux")]
fn of_linux((level, option): (i32, i32), bytes: &[u8]) -> Option<String> {
    use crate::consts::{IPPROTO_TCP, SO_BINDTODEVICE, SO_PEERCRED, TCP_CONGESTION, TCP_INFO};
    match (level, option) {
        (SOL_SOCKET, SO_PEERCRED) => {
            let (pid, rest) = bytes.split_first_chunk::<4>()?;
            let (uid, gid) = rest.split_first_chunk::<4>()?;
            let (pid, uid) = (i32::from_ne_bytes(*pid), u32::from_ne_bytes(*uid));
            Some(format!("{{pid={pid}, uid={uid}, gid={}}}", number(gid)?))
        }
        (SOL_SOCKET, SO_BINDTODEVICE) | (IPPROTO_TCP, TCP_CONGESTION) => {
            let text = bytes.split(|byte| *byte == 0).next()?;
            Some(format!("\"{}\"", text.escape_ascii()))
        }
        (IPPROTO_TCP, TCP_INFO) => {
            let state = crate::TcpInfo::from_bytes(bytes)?.state;
            Some(format!("{{tcpi_state={state}, ...}} {} bytes", bytes.len()))
        }
        _ => None,
    }
}

fn ipv4(bytes: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let (address, rest) = bytes.split_first_chunk::<4>()?;
    Some((Ipv4Addr::from(*address), rest))
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(level: i32, option: i32, bytes: &[u8]) -> String {
        DisplayValue { level, option, bytes }.to_string()
    }

    #[test]
    fn values_are_shown_by_the_names_of_their_fields() {
        let seconds = std::time::Duration::from_millis(1500);
        for (level, option, bytes, expected) in [
            (SOL_SOCKET, SO_LINGER, sys::linger(true, 5).to_vec(), "{l_onoff=1, l_linger=5}"),
            (
                IPPROTO_IP,
                IP_ADD_MEMBERSHIP,
                vec![224, 0, 0, 1, 0, 0, 0, 0],
                "{imr_multiaddr=224.0.0.1, imr_interface=0.0.0.0}",
            ),
            (IPPROTO_IP, IP_MULTICAST_IF, vec![127, 0, 0, 1], "127.0.0.1"),
            (SOL_SOCKET, -1, 7_i32.to_ne_bytes().to_vec(), "7"),
            (SOL_SOCKET, -1, vec![7], "7"),
            (SOL_SOCKET, -1, vec![1, 255], "[01, ff]"),
        ] {
            assert_eq!(shown(level, option, &bytes), expected);
        }
        if cfg!(unix) {
            let bytes = sys::timeval(seconds);
            assert_eq!(shown(SOL_SOCKET, SO_RCVTIMEO, &bytes), "{tv_sec=1, tv_usec=500000}");
        }
        // A value of another length is no such structure.
        assert_eq!(shown(SOL_SOCKET, SO_LINGER, &[1]), "1");
        let group = [&Ipv6Addr::LOCALHOST.octets()[..], &3_u32.to_ne_bytes()].concat();
        let expected = "{ipv6mr_multiaddr=::1, ipv6mr_interface=3}";
        assert_eq!(shown(IPPROTO_IPV6, IPV6_JOIN_GROUP, &group), expected);
        assert!(shown(SOL_SOCKET, -1, &[0; 100]).ends_with("... 100 bytes"));
    }
}
