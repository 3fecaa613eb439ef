//! Byte order, and conversion of internet addresses between text and bytes.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::consts::{AF_INET, AF_INET6, AddressFamily};
use crate::error::{invalid, invalid_as};
use crate::sys::c;

/// Converts a port from host to network byte order. Python: `socket.htons`.
///
/// # Examples
///
/// ```
/// assert_eq!(sock::htons(80).to_ne_bytes(), [0, 80]);
/// ```
#[must_use]
pub const fn htons(host: u16) -> u16 {
    host.to_be()
}

/// Converts a port from network to host byte order. Python: `socket.ntohs`.
///
/// # Examples
///
/// ```
/// assert_eq!(sock::ntohs(u16::from_ne_bytes([0, 80])), 80);
/// ```
#[must_use]
pub const fn ntohs(network: u16) -> u16 {
    u16::from_be(network)
}

/// Converts 32 bits from host to network byte order. Python: `socket.htonl`.
///
/// # Examples
///
/// ```
/// assert_eq!(sock::htonl(0x7f00_0001).to_ne_bytes(), [127, 0, 0, 1]);
/// ```
#[must_use]
pub const fn htonl(host: u32) -> u32 {
    host.to_be()
}

/// Converts 32 bits from network to host byte order. Python: `socket.ntohl`.
///
/// # Examples
///
/// ```
/// assert_eq!(sock::ntohl(u32::from_ne_bytes([127, 0, 0, 1])), 0x7f00_0001);
/// ```
#[must_use]
pub const fn ntohl(network: u32) -> u32 {
    u32::from_be(network)
}

/// Converts an IPv4 address in any BSD notation into four bytes.
///
/// `127.1` is 127.0.0.1: the last part fills the remaining bytes. A part may be octal or
/// hexadecimal.
///
/// Python: `socket.inet_aton(text)`. Library call: inet_aton(3).
///
/// # Errors
///
/// Returns an error of kind `InvalidInput`, with the text, if the text is not an address.
///
/// # Examples
///
/// ```
/// assert_eq!(sock::inet_aton("127.1")?, [127, 0, 0, 1]);
/// assert_eq!(sock::inet_aton("0x7f000001")?, [127, 0, 0, 1]);
/// assert!(sock::inet_aton("256.0.0.1").is_err());
/// # std::io::Result::Ok(())
/// ```
pub fn inet_aton(text: &str) -> io::Result<[u8; 4]> {
    parse_bsd(text).map(u32::to_be_bytes).ok_or_else(|| invalid(format!("not an IPv4 address: {text:?}")))
}

fn parse_bsd(text: &str) -> Option<u32> {
    // As in C, text after white space is ignored.
    let word = text.split(|c: char| c.is_ascii_whitespace()).next()?;
    let parts: Vec<&str> = word.split('.').collect();
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 {
        return None;
    }
    let mut address = 0_u32;
    for (place, part) in leading.iter().enumerate() {
        let byte = u8::try_from(parse_c_number(part)?).ok()?;
        address |= u32::from(byte) << (24 - 8 * place);
    }
    let rest = parse_c_number(last)?;
    let room = 32 - 8 * leading.len();
    (room == 32 || rest < 1 << room).then_some(address | rest)
}

/// Parses a number: decimal, octal after 0, hexadecimal after 0x.
fn parse_c_number(text: &str) -> Option<u32> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    match (lower.strip_prefix("0x"), lower.strip_prefix('0')) {
        (Some(digits), _) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
        (None, Some("")) => Some(0),
        (None, Some(digits)) if !digits.starts_with('+') => u32::from_str_radix(digits, 8).ok(),
        (None, None) => lower.parse().ok(),
        _ => None,
    }
}

/// Converts four bytes into an IPv4 address.
///
/// Python: `socket.inet_ntoa(packed)`.
///
/// # Errors
///
/// Returns an error of kind `InvalidInput` if there are not exactly four bytes.
///
/// # Examples
///
/// ```
/// assert_eq!(sock::inet_ntoa(&[127, 0, 0, 1])?, "127.0.0.1");
/// assert!(sock::inet_ntoa(&[127, 0, 0]).is_err());
/// # std::io::Result::Ok(())
/// ```
pub fn inet_ntoa(packed: &[u8]) -> io::Result<String> {
    match <[u8; 4]>::try_from(packed) {
        Ok(bytes) => Ok(Ipv4Addr::from(bytes).to_string()),
        Err(_) => Err(invalid(format!("an IPv4 address is 4 bytes, not {}", packed.len()))),
    }
}

/// Converts an address of `AF_INET` or `AF_INET6` in standard notation into bytes.
///
/// Python: `socket.inet_pton(family, text)`. Library call: inet_pton(3).
///
/// # Errors
///
/// Returns an error of kind `InvalidInput` if the text is not an address of the family, and with
/// the errno `EAFNOSUPPORT` if the family is another one.
///
/// # Examples
///
/// ```
/// use sock::{AF_INET, AF_INET6};
///
/// assert_eq!(sock::inet_pton(AF_INET, "127.0.0.1")?, [127, 0, 0, 1]);
/// assert_eq!(sock::inet_ntop(AF_INET6, &sock::inet_pton(AF_INET6, "0:0::1")?)?, "::1");
/// # std::io::Result::Ok(())
/// ```
pub fn inet_pton(family: AddressFamily, text: &str) -> io::Result<Vec<u8>> {
    let bytes = match family {
        AF_INET => text.parse::<Ipv4Addr>().ok().map(|ip| ip.octets().to_vec()),
        AF_INET6 => text.parse::<Ipv6Addr>().ok().map(|ip| ip.octets().to_vec()),
        _ => return Err(unknown(family)),
    };
    bytes.ok_or_else(|| invalid(format!("not an {family} address: {text:?}")))
}

/// Converts the bytes of an `AF_INET` or `AF_INET6` address into text.
///
/// Python: `socket.inet_ntop(family, packed)`. Library call: inet_ntop(3).
///
/// # Errors
///
/// Returns an error of kind `InvalidInput` if the number of bytes is wrong, and with the errno
/// `EAFNOSUPPORT` if the family is another one.
///
/// # Examples
///
/// ```
/// use sock::AF_INET6;
///
/// assert_eq!(sock::inet_ntop(AF_INET6, &[0; 16])?, "::");
/// # std::io::Result::Ok(())
/// ```
pub fn inet_ntop(family: AddressFamily, packed: &[u8]) -> io::Result<String> {
    let text = match family {
        AF_INET => <[u8; 4]>::try_from(packed).ok().map(|bytes| Ipv4Addr::from(bytes).to_string()),
        AF_INET6 => <[u8; 16]>::try_from(packed).ok().map(|bytes| v6_text(bytes.into())),
        _ => return Err(unknown(family)),
    };
    text.ok_or_else(|| invalid(format!("{} bytes are not an {family} address", packed.len())))
}

/// `std` prints an IPv4-compatible address (RFC 4291, 2.5.5.1) as two hexadecimal numbers.
fn v6_text(ip: Ipv6Addr) -> String {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, high, _] if high > 0 => format!("::{}", Ipv4Addr::from(ip.to_bits() as u32)),
        _ => ip.to_string(),
    }
}

fn unknown(family: AddressFamily) -> io::Error {
    invalid_as(c::EAFNOSUPPORT, format!("unsupported family {family}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aton_accepts_every_bsd_notation() {
        let good = [
            ("0.0.0.0", [0, 0, 0, 0]),
            ("255.255.255.255", [255, 255, 255, 255]),
            ("127.1", [127, 0, 0, 1]),
            ("127.0.1", [127, 0, 0, 1]),
            ("127.65535", [127, 0, 255, 255]),
            ("2130706433", [127, 0, 0, 1]),
            ("0x7F.1", [127, 0, 0, 1]),
            ("0177.1", [127, 0, 0, 1]),
            ("1.2.3.4 and more", [1, 2, 3, 4]),
        ];
        for (text, bytes) in good {
            assert_eq!(inet_aton(text).unwrap(), bytes, "{text}");
        }
        for text in [
            "",
            " ",
            ".",
            "1.",
            ".1",
            "1.2.3.4.5",
            "256.1",
            "1.2.3.256",
            "1.16777216",
            "4294967296",
            "0x",
            "08",
            "0x+1",
            "0+1",
            "+1",
            "-1",
            "1.2.3.4x",
            "::1",
            "a",
        ] {
            assert!(inet_aton(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pton_accepts_only_the_standard_notation() {
        for text in ["127.1", "01.2.3.4", "1.2.3.4 ", "1.2.3", "::1"] {
            assert!(inet_pton(AF_INET, text).is_err(), "{text}");
        }
        for text in
            [":", ":::", "1::2::3", "1:2:3:4:5:6:7:8:9", "::1%lo", "12345::", "::1.2.3.400", "1.2.3.4"]
        {
            assert!(inet_pton(AF_INET6, text).is_err(), "{text}");
        }
        assert_eq!(inet_pton(AF_INET6, "::ffff:1.2.3.4").unwrap()[10..], [255, 255, 1, 2, 3, 4]);
        let error = inet_pton(AddressFamily::from(99), "x").unwrap_err();
        assert_eq!(crate::error::errno(&error), Some(c::EAFNOSUPPORT));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn ntop_prints_what_the_system_prints() {
        for text in [
            "::",
            "::1",
            "::1.2.3.4",
            "::0.1.0.0",
            "::ffff",
            "::ffff:1.2.3.4",
            "::ffff:0:1.2.3.4",
            "1::",
            "1:0:0:2::",
            "0:0:1::2:0",
            "1:0:2:3:4:5:6:7",
            "64:ff9b::1.2.3.4",
            "2001:db8:ab::cd",
        ] {
            let packed = inet_pton(AF_INET6, text).unwrap();
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(&packed[..]).unwrap());
            // getnameinfo(3) calls the system's own inet_ntop(3).
            let (system, _) = crate::netdb::getnameinfo(
                &crate::address::Address::from(std::net::SocketAddr::from((address, 0))),
                crate::consts::NI_NUMERICHOST | crate::consts::NI_NUMERICSERV,
            )
            .unwrap();
            assert_eq!(inet_ntop(AF_INET6, &packed).unwrap(), system, "{text}");
        }
    }

    #[test]
    fn lengths_are_checked() {
        assert!(inet_ntoa(&[1, 2, 3]).is_err());
        assert!(inet_ntop(AF_INET, &[0; 16]).is_err());
        assert_eq!(inet_ntop(AF_INET6, &[0; 16]).unwrap(), "::");
        assert_eq!(inet_ntoa(&[1, 2, 3, 4]).unwrap(), "1.2.3.4");
    }

    #[test]
    fn byte_order_conversions_are_inverse() {
        assert_eq!(htons(0x1234).to_ne_bytes(), [0x12, 0x34]);
        assert_eq!(htonl(0x1234_5678).to_ne_bytes(), [0x12, 0x34, 0x56, 0x78]);
        assert_eq!((ntohs(htons(7)), ntohl(htonl(7))), (7, 7));
    }
}
