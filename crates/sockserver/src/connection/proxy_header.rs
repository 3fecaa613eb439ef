//! The header of the PROXY protocol, version 1 and 2: its length, and what it contains.
//!
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. The crate `ppp` parses the
//! addresses. Where it accepts more than the specification allows, this module rejects the header.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use ppp::{v1, v2};
use sock::{Address, UnixAddress};

use crate::limits::header_error::HeaderError;

/// The longest header of version 1, with its CRLF (section 2.1).
pub(crate) const MAX_V1: usize = 107;

/// The fixed part of a header of version 2, which ends with the length of the rest.
const V2_FIXED: usize = 16;

const V1_START: &[u8] = b"PROXY ";

/// The client's address and further data that a proxy has sent ahead of a connection.
///
/// A handler gets it from `StreamContext::proxy_header`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    version: u8,
    is_local: bool,
    source: Option<Address>,
    destination: Option<Address>,
    tlvs: Box<[u8]>,
}

impl ProxyHeader {
    /// The type of the TLV with the protocol that ALPN has selected (`PP2_TYPE_ALPN`).
    pub const ALPN: u8 = 0x01;
    /// The type of the TLV with the host name that the client has requested, for example in the SNI
    /// extension of TLS (`PP2_TYPE_AUTHORITY`).
    pub const AUTHORITY: u8 = 0x02;
    /// The type of the TLV with an identifier of the connection (`PP2_TYPE_UNIQUE_ID`).
    pub const UNIQUE_ID: u8 = 0x05;
    /// The type of the TLV about the TLS connection of the client, with TLVs of its own
    /// (`PP2_TYPE_SSL`).
    pub const SSL: u8 = 0x20;
    /// The type of the TLV with the name of the network namespace (`PP2_TYPE_NETNS`).
    pub const NETNS: u8 = 0x30;

    /// Returns the version of the header, 1 or 2.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{ProxyProtocol, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| {
    ///     let Some(header) = cx.proxy_header() else { return Ok(()) };
    ///     write!(cx.wfile, "version {}", header.version())
    /// }))
    /// .proxy_protocol(ProxyProtocol::from_networks(["127.0.0.1"])?)
    /// .bind(("127.0.0.1", 0))?;
    /// let proxy = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// proxy.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n")?;
    /// server.handle_request()?;
    /// assert_eq!(proxy.recv(100)?, b"version 1");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Returns whether the proxy itself has made the connection, for example for a health check
    /// (the command `LOCAL` of version 2).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{ProxyProtocol, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| {
    ///     let Some(header) = cx.proxy_header() else { return Ok(()) };
    ///     write!(cx.wfile, "{}", header.is_local())
    /// }))
    /// .proxy_protocol(ProxyProtocol::from_networks(["127.0.0.1"])?)
    /// .bind(("127.0.0.1", 0))?;
    /// let proxy = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// proxy.sendall(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")?;
    /// server.handle_request()?;
    /// assert_eq!(proxy.recv(100)?, b"true");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Returns the address of the client. `None` if the header has none: `LOCAL`, `UNKNOWN`,
    /// `UNSPEC`, or a client that does not use a stream.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{ProxyProtocol, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| {
    ///     let Some(header) = cx.proxy_header() else { return Ok(()) };
    ///     write!(cx.wfile, "{}", header.source().unwrap())
    /// }))
    /// .proxy_protocol(ProxyProtocol::from_networks(["127.0.0.1"])?)
    /// .bind(("127.0.0.1", 0))?;
    /// let proxy = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// proxy.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n")?;
    /// server.handle_request()?;
    /// assert_eq!(proxy.recv(100)?, b"192.0.2.7:56324");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn source(&self) -> Option<&Address> {
        self.source.as_ref()
    }

    /// Returns the address that the client has connected to, `None` if the header has none.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{ProxyProtocol, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| {
    ///     let Some(header) = cx.proxy_header() else { return Ok(()) };
    ///     write!(cx.wfile, "{}", header.destination().unwrap())
    /// }))
    /// .proxy_protocol(ProxyProtocol::from_networks(["127.0.0.1"])?)
    /// .bind(("127.0.0.1", 0))?;
    /// let proxy = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// proxy.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n")?;
    /// server.handle_request()?;
    /// assert_eq!(proxy.recv(100)?, b"198.51.100.2:443");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn destination(&self) -> Option<&Address> {
        self.destination.as_ref()
    }

    /// Returns the type and the value of each TLV, in their order. Version 1 has none.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{ProxyProtocol, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| {
    ///     let Some(header) = cx.proxy_header() else { return Ok(()) };
    ///     write!(cx.wfile, "{:?}", header.tlvs().collect::<Vec<_>>())
    /// }))
    /// .proxy_protocol(ProxyProtocol::from_networks(["127.0.0.1"])?)
    /// .bind(("127.0.0.1", 0))?;
    /// let proxy = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// proxy.sendall(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x07\xc6\x33\x64\x02\xdc\x04\x01\xbb\x05\0\x02id")?;
    /// server.handle_request()?;
    /// assert_eq!(proxy.recv(100)?, b"[(5, [105, 100])]");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn tlvs(&self) -> impl Iterator<Item = (u8, &[u8])> {
        Tlvs(&self.tlvs).filter_map(Result::ok)
    }

    /// Returns the value of the first TLV of this type.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{ProxyHeader, ProxyProtocol, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| {
    ///     let Some(header) = cx.proxy_header() else { return Ok(()) };
    ///     cx.wfile.write_all(header.tlv(ProxyHeader::UNIQUE_ID).unwrap_or(b"none"))
    /// }))
    /// .proxy_protocol(ProxyProtocol::from_networks(["127.0.0.1"])?)
    /// .bind(("127.0.0.1", 0))?;
    /// let proxy = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// proxy.sendall(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x07\xc6\x33\x64\x02\xdc\x04\x01\xbb\x05\0\x02id")?;
    /// server.handle_request()?;
    /// assert_eq!(proxy.recv(100)?, b"id");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs().find_map(|(known, value)| (known == kind).then_some(value))
    }
}

/// How much of the input belongs to the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The first bytes, as many as this. The header is complete.
    Complete(usize),
    /// All bytes. More follow.
    Partial,
}

/// Returns how much of the input belongs to the header, which has at most `limit` bytes.
pub(crate) fn extent(input: &[u8], limit: usize) -> Result<Extent, HeaderError> {
    if begins(input, v2::PROTOCOL_PREFIX) {
        return extent_of_v2(input, limit);
    }
    if !begins(input, V1_START) {
        return Err(HeaderError::Missing);
    }
    let longest = limit.min(MAX_V1);
    match input.iter().take(longest - 1).position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(end) => match (input[end], input.get(end + 1)) {
            (b'\r', Some(b'\n')) => Ok(Extent::Complete(end + 2)),
            (b'\r', None) => Ok(Extent::Partial),
            _ => Err(HeaderError::Malformed),
        },
        None if input.len() >= longest - 1 => Err(HeaderError::TooLong),
        None => Ok(Extent::Partial),
    }
}

/// Whether the input begins with `start`, or is the beginning of it.
fn begins(input: &[u8], start: &[u8]) -> bool {
    let common = input.len().min(start.len());
    input[..common] == start[..common]
}

fn extent_of_v2(input: &[u8], limit: usize) -> Result<Extent, HeaderError> {
    if input.get(12).is_some_and(|version| version >> 4 != 2) {
        return Err(HeaderError::Malformed);
    }
    let &[_, _, _, _, _, _, _, _, _, _, _, _, _, _, high, low, ..] = input else {
        return Ok(Extent::Partial);
    };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > limit {
        return Err(HeaderError::TooLong);
    }
    Ok(if input.len() < length { Extent::Partial } else { Extent::Complete(length) })
}

/// Parses a complete header.
pub(crate) fn parse(header: &[u8]) -> Result<ProxyHeader, HeaderError> {
    if header.starts_with(v2::PROTOCOL_PREFIX) { parse_v2(header) } else { parse_v1(header) }
}

fn parse_v1(header: &[u8]) -> Result<ProxyHeader, HeaderError> {
    let line = header.strip_suffix(b"\r\n").ok_or(HeaderError::Malformed)?;
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let (source, destination) = match fields[..] {
        // The rest of the line has to be ignored.
        [_, b"UNKNOWN", ..] => (None, None),
        [_, _, _, _, source_port, port] if is_number(source_port) && is_number(port) => {
            let parsed = v1::Header::try_from(header).map_err(|_| HeaderError::Malformed)?;
            match parsed.addresses {
                v1::Addresses::Tcp4(addresses) => v4(&addresses),
                v1::Addresses::Tcp6(addresses) => v6(&addresses),
                v1::Addresses::Unknown => (None, None),
            }
        }
        _ => return Err(HeaderError::Malformed),
    };
    Ok(ProxyHeader { version: 1, is_local: false, source, destination, tlvs: Box::default() })
}

/// Whether the text has digits only. `ppp` also accepts a sign.
fn is_number(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit)
}

fn parse_v2(header: &[u8]) -> Result<ProxyHeader, HeaderError> {
    let [command, family] = [header[12] & 15, header[13]];
    if command == 0 {
        // The rest has to be discarded, whatever its family is (section 2.2).
        let (source, destination) = (None, None);
        return Ok(ProxyHeader { version: 2, is_local: true, source, destination, tlvs: Box::default() });
    }
    // Other combinations of family and protocol have to be rejected (section 2.2).
    if !matches!(family, 0x00 | 0x11 | 0x12 | 0x21 | 0x22 | 0x31 | 0x32) {
        return Err(HeaderError::Malformed);
    }
    let parsed = v2::Header::try_from(header).map_err(|_| HeaderError::Malformed)?;
    let (source, destination) = match parsed.addresses {
        v2::Addresses::IPv4(addresses) => v4(&addresses),
        v2::Addresses::IPv6(addresses) => v6(&addresses),
        v2::Addresses::Unix(unix) => {
            (Some(unix_address(&unix.source)), Some(unix_address(&unix.destination)))
        }
        v2::Addresses::Unspecified => (None, None),
    };
    let is_stream = parsed.protocol == v2::Protocol::Stream;
    let (source, destination) = if is_stream { (source, destination) } else { (None, None) };
    let tlvs = parsed.tlv_bytes();
    check_tlvs(header, tlvs)?;
    Ok(ProxyHeader { version: 2, is_local: false, source, destination, tlvs: tlvs.into() })
}

type Pair = (Option<Address>, Option<Address>);

fn v4(addresses: &v1::IPv4) -> Pair {
    let address = |ip, port| Some(SocketAddr::V4(SocketAddrV4::new(ip, port)).into());
    (
        address(addresses.source_address, addresses.source_port),
        address(addresses.destination_address, addresses.destination_port),
    )
}

fn v6(addresses: &v1::IPv6) -> Pair {
    let address = |ip, port| Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, 0)).into());
    (
        address(addresses.source_address, addresses.source_port),
        address(addresses.destination_address, addresses.destination_port),
    )
}

/// Converts the `sun_path` of a Unix address.
fn unix_address(path: &[u8; 108]) -> Address {
    let end = |bytes: &[u8]| bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let name = match path {
        // The length of an abstract name is not sent, and its end is filled with NULs.
        [0, name @ ..] => match name.iter().rposition(|byte| *byte != 0) {
            None => UnixAddress::Unnamed,
            Some(last) => UnixAddress::Abstract(name[..=last].into()),
        },
        path => UnixAddress::Path(String::from_utf8_lossy(&path[..end(path)]).into_owned().into()),
    };
    Address::Unix(name)
}

/// The TLVs of version 2.
struct Tlvs<'a>(&'a [u8]);

impl<'a> Iterator for Tlvs<'a> {
    type Item = Result<(u8, &'a [u8]), HeaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.0 {
            [] => return None,
            [kind, high, low, rest @ ..] => {
                rest.split_at_checked(u16::from_be_bytes([*high, *low]).into()).map(|split| (*kind, split))
            }
            _ => None,
        };
        let (tlv, rest) = match next {
            Some((kind, (value, rest))) => (Ok((kind, value)), rest),
            None => (Err(HeaderError::Malformed), &[][..]),
        };
        self.0 = rest;
        Some(tlv)
    }
}

/// The type of the TLV with the checksum (`PP2_TYPE_CRC32C`).
const CRC32C: u8 = 0x03;

/// Checks that each TLV is complete, and the checksum if there is one (section 2.2.3).
fn check_tlvs(header: &[u8], tlvs: &[u8]) -> Result<(), HeaderError> {
    let mut place = header.len() - tlvs.len();
    for tlv in Tlvs(tlvs) {
        let (kind, value) = tlv?;
        let begin = place + 3;
        place = begin + value.len();
        if kind == CRC32C {
            let sent: [u8; 4] = value.try_into().map_err(|_| HeaderError::Malformed)?;
            let zeros = [0; 4];
            let parts = [&header[..begin], &zeros, &header[place..]];
            if crc32c(parts.into_iter().flatten().copied()) != u32::from_be_bytes(sent) {
                return Err(HeaderError::Checksum);
            }
        }
    }
    Ok(())
}

/// Computes the CRC-32C (RFC 4960, appendix B).
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parses what begins with a header. Returns the header and the number of its bytes.
    fn read(input: &[u8]) -> Result<(ProxyHeader, usize), HeaderError> {
        match extent(input, 4096)? {
            Extent::Complete(length) => Ok((parse(&input[..length])?, length)),
            Extent::Partial => Err(HeaderError::Truncated),
        }
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, body].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];

    fn addresses(header: &ProxyHeader) -> (String, String) {
        let shown = |address: Option<&Address>| address.map_or("none".to_owned(), Address::to_string);
        (shown(header.source()), shown(header.destination()))
    }

    #[test]
    fn the_headers_of_the_specification_are_parsed() {
        let v4 = ("192.0.2.1:56324", "198.51.100.2:443");
        let v6 = ("[2001:db8::1]:56324", "[2001:db8::2]:443");
        let none = ("none", "none");
        let worst = format!("PROXY UNKNOWN {} {0} 65535 65535\r\n", ["ffff"; 8].join(":"));
        assert_eq!(worst.len(), MAX_V1);
        let body_v6 = [
            &std::net::Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]).octets()[..],
            &std::net::Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2]).octets(),
            &[0xdc, 0x04, 0x01, 0xbb],
        ]
        .concat();
        let cases: [(Vec<u8>, (&str, &str)); 12] = [
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n".to_vec(), v4),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n".to_vec(), v6),
            (b"PROXY UNKNOWN\r\n".to_vec(), none),
            (b"PROXY UNKNOWN one two three four five six\r\n".to_vec(), none),
            (worst.into_bytes(), none),
            (v2(1, 0x11, &IPV4), v4),
            (v2(1, 0x21, &body_v6), v6),
            (v2(1, 0x12, &IPV4), none),
            (v2(1, 0x00, b""), none),
            (v2(1, 0x00, &[7; 40]), none),
            (v2(0, 0x00, b""), none),
            (v2(0, 0x11, &[7; 3]), none),
        ];
        for (header, (source, destination)) in cases {
            let input = [&header[..], b"rest"].concat();
            let (parsed, length) = read(&input).unwrap();
            assert_eq!(addresses(&parsed), (source.to_owned(), destination.to_owned()));
            assert_eq!(length, header.len());
            assert_eq!(parsed.is_local(), header[12..].starts_with(b"\x20"), "{header:?}");
            for end in 0..header.len() {
                assert_eq!(extent(&header[..end], 4096), Ok(Extent::Partial), "{end} of {header:?}");
            }
        }
    }

    #[test]
    fn unix_addresses_have_three_forms() {
        let body = |source: &[u8]| {
            let mut body = [0; 216];
            body[..source.len()].copy_from_slice(source);
            v2(1, 0x31, &body)
        };
        let source = |bytes: &[u8]| read(&body(bytes)).unwrap().0.source().cloned().unwrap();
        assert_eq!(source(b"/run/client"), Address::Unix(UnixAddress::Path("/run/client".into())));
        assert_eq!(source(b"\0name"), Address::Unix(UnixAddress::Abstract(b"name"[..].into())));
        assert_eq!(source(b""), Address::Unix(UnixAddress::Unnamed));
        let longest = [b'/'; 108];
        assert_eq!(source(&longest).path().unwrap().as_os_str().len(), 108);
    }

    #[test]
    fn tlvs_and_the_checksum_are_checked() {
        let tlvs = [tlv(ProxyHeader::ALPN, b"h2"), tlv(0xe0, b""), tlv(ProxyHeader::UNIQUE_ID, b"id")];
        let (header, _) = read(&v2(1, 0x11, &[&IPV4[..], &tlvs.concat()].concat())).unwrap();
        let all: Vec<_> = header.tlvs().collect();
        assert_eq!(all, [(1, &b"h2"[..]), (0xe0, b""), (5, b"id")]);
        assert_eq!((header.tlv(5), header.tlv(2)), (Some(&b"id"[..]), None));

        let with = |checksum: u32| {
            let body = [&IPV4[..], &tlvs[0], &tlv(CRC32C, &checksum.to_be_bytes()), &tlvs[2]].concat();
            v2(1, 0x11, &body)
        };
        let right = crc32c(with(0).into_iter());
        assert!(read(&with(right)).is_ok());
        assert_eq!(read(&with(right ^ 1)), Err(HeaderError::Checksum));
        let short = v2(1, 0x11, &[&IPV4[..], &tlv(CRC32C, &[0; 3])].concat());
        assert_eq!(read(&short), Err(HeaderError::Malformed));
        // RFC 3720, B.4.
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
    }

    #[test]
    fn malformed_headers_are_rejected() {
        let cut_tlv = [&IPV4[..], &tlv(1, b"h2")[..4]].concat();
        let mut version_3 = v2(1, 0x11, &IPV4);
        version_3[12] = 0x31;
        let malformed: [Vec<u8>; 18] = [
            b"PROXY TCP4 192.0.2.1 198.51.100.2 +6324 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 65536\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 056324 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1  198.51.100.2 56324 443\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.1 198.51.100.2 56324 443\r\n".to_vec(),
            b"PROXY TCP5 192.0.2.1 198.51.100.2 56324 443\r\n".to_vec(),
            b"PROXY UNKNOWNS\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n".to_vec(),
            b"PROXY UNKNOWN \rtwo\r\n".to_vec(),
            v2(2, 0x11, &IPV4),
            v2(1, 0x10, &IPV4),
            v2(1, 0x01, b""),
            v2(1, 0x11, &IPV4[1..]),
            v2(1, 0x11, &cut_tlv),
            version_3,
        ];
        for header in malformed {
            let shown = String::from_utf8_lossy(&header).into_owned();
            assert_eq!(read(&header), Err(HeaderError::Malformed), "{shown:?}");
        }
        for other in
            [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01\x02\x00", b"proxy TCP4", b"PROXYTCP4", b"\r\n\r\nX"]
        {
            assert_eq!(extent(other, 4096), Err(HeaderError::Missing));
        }
        let line = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
        assert_eq!(extent(&line[..105], 4096), Ok(Extent::Partial));
        assert_eq!(extent(&line[..106], 4096), Err(HeaderError::TooLong));
        let one_more = [&line[..106], b"\r\n"].concat();
        assert_eq!(extent(&one_more, 4096), Err(HeaderError::TooLong));
        let big = v2(1, 0x00, &[0; 4081]);
        assert_eq!(extent(&big[..16], 4096), Err(HeaderError::TooLong));
        assert_eq!(extent(&big, 4097), Ok(Extent::Complete(4097)));
    }

    proptest! {
        /// Input in pieces gives the same result as the whole input, and none panics.
        #[test]
        fn the_extent_does_not_depend_on_where_the_input_is_cut(
            start in prop_oneof![
                Just(&b""[..]), Just(V1_START), Just(&b"PROXY TCP4 1.2.3.4 "[..]), Just(v2::PROTOCOL_PREFIX),
                Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..]),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let input = [start, &rest].concat();
            let whole = extent(&input, 300);
            for end in 0..input.len() {
                match extent(&input[..end], 300) {
                    Ok(Extent::Partial) => {}
                    decided => prop_assert_eq!(decided, whole),
                }
            }
            if let Ok(Extent::Complete(length)) = whole {
                prop_assert!(length <= 300);
                if let Ok(header) = parse(&input[..length]) {
                    header.tlvs().for_each(drop);
                }
            }
        }
    }
}
