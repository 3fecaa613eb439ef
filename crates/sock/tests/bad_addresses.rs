//! Each fault of an address is reported by a sentence that names the address,
//! with the errno or `getaddrinfo` code where there is one; nothing panics, and
//! nothing else is bound or called than was named.
//!
//! That a failure keeps no descriptor is in `descriptor_leaks.rs`.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use sock::{
    AF_INET, AF_INET6, AF_UNIX, Address, AddressError, AddressFamily, ConnectError, ConnectionOptions,
    EAI_NONAME, GaiError, SOCK_DGRAM, SOCK_STREAM, ServerOptions, Socket, ToAddress, UnixAddress,
    create_connection, create_connection_with, create_server, create_server_with, errno, errno_name,
    getaddrinfo,
};

/// Needs no resolver: an empty label is not a host name.
const NO_SUCH_NAME: &str = "no..name";

fn tcp() -> Socket {
    Socket::new(AF_INET, SOCK_STREAM, 0).unwrap()
}

fn unix() -> Socket {
    Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap()
}

/// What each call that takes an address of `family` says to this one.
#[track_caller]
fn refusals(address: impl ToAddress + Copy, family: AddressFamily) -> Vec<(&'static str, io::Error)> {
    let stream = Socket::new(family, SOCK_STREAM, 0).unwrap();
    let datagram = Socket::new(family, SOCK_DGRAM, 0).unwrap();
    let server = ServerOptions::new().family(family);
    vec![
        ("bind", stream.bind(address).unwrap_err()),
        ("connect", stream.connect(address).unwrap_err()),
        (
            "connect_ex",
            stream.connect_ex(address).expect_err("an errno of connect_ex, which was not called"),
        ),
        ("sendto", datagram.sendto(b"x", address).unwrap_err()),
        ("create_server", create_server_with(address, &server).unwrap_err()),
        ("to_address", address.to_address(family).and_then(|address| stream.bind(address)).unwrap_err()),
    ]
}

/// The same for a host and a port, which more calls take.
#[track_caller]
fn refusals_of_host_and_port<P>(
    host: &str,
    port: P,
    family: AddressFamily,
) -> Vec<(&'static str, io::Error)>
where
    P: sock::Port + fmt::Display + Copy,
{
    let mut refusals = refusals((host, port), family);
    refusals.push(("create_connection", create_connection((host, port)).unwrap_err()));
    refusals
}

/// Every call refuses with `InvalidInput` and a sentence with all of `words` in it.
#[track_caller]
fn assert_all_say(refusals: Vec<(&'static str, io::Error)>, words: &[&str]) {
    for (call, error) in refusals {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{call}: {error}");
        assert_eq!(error.raw_os_error(), None, "{call}: {error}");
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "{call} does not say {word:?}: {text}");
        }
    }
}

fn errno_of(error: &io::Error) -> &'static str {
    errno(error).and_then(errno_name).unwrap_or("none")
}

/// A name of Linux's abstract namespace that no other test has.
fn name_of(test: &str) -> Vec<u8> {
    format!("\0sock-{}-{test}", std::process::id()).into_bytes()
}

/// A folder that is removed with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("sock-{}-{test}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn entries(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_port_of_any_integer_type_is_refused_outside_0_to_65535() {
    macro_rules! refused {
        ($($port:expr),*) => {$(
            let port = $port.to_string();
            assert_all_say(
                refusals_of_host_and_port("127.0.0.1", $port, AF_INET),
                &["port must be 0-65535", &format!("not {port}"), "127.0.0.1"],
            );
            assert_all_say(refusals_of_host_and_port("::1", $port, AF_INET6), &["port must be 0-65535", "::1"]);
        )*};
    }
    refused!(-1_i8, -1_i16, i16::MIN, -1_i32, 65_536_i32, i32::MIN, i32::MAX, -1_i64, 65_536_i64, i64::MAX);
    refused!(-1_i128, i128::MAX, -1_isize, 65_536_isize, 65_536_u32, u32::MAX, 65_536_u64, u64::MAX);
    refused!(65_536_usize, usize::MAX, 65_536_u128, u128::MAX);
}

#[test]
fn a_port_of_any_integer_type_is_taken_within_0_to_65535() {
    macro_rules! taken {
        ($($port:expr),*) => {$(
            let address = ("127.0.0.1", $port).to_address(AF_INET).unwrap();
            assert_eq!(address.to_string(), format!("127.0.0.1:{}", $port));
        )*};
    }
    taken!(
        255_u8,
        127_i8,
        0_u16,
        u16::MAX,
        0_i16,
        i16::MAX,
        65_535_i32,
        65_535_u32,
        65_535_i64,
        65_535_u64
    );
    taken!(65_535_i128, 65_535_u128, 65_535_isize, 65_535_usize);
}

#[test]
fn a_service_that_is_a_port_is_refused_outside_0_to_65535() {
    for error in [
        getaddrinfo("127.0.0.1", -1).unwrap_err(),
        getaddrinfo("127.0.0.1", 65_536_u32).unwrap_err(),
        getaddrinfo("127.0.0.1", i64::MAX).unwrap_err(),
        getaddrinfo("127.0.0.1", u64::MAX).unwrap_err(),
        getaddrinfo("127.0.0.1", usize::MAX).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("port must be 0-65535, not "), "{error}");
    }
}

#[test]
fn a_host_with_a_nul_in_it_is_refused() {
    for host in ["\0", "local\0host", "127.0.0.1\0", "\x00127.0.0.1"] {
        for family in [AF_INET, AF_INET6] {
            let shown = format!("{host:?}");
            assert_all_say(refusals_of_host_and_port(host, 1, family), &["host", "NUL", &shown]);
        }
        let error = getaddrinfo(host, 80).unwrap_err();
        assert!(error.to_string().contains("NUL"), "{error}");
    }
    let error = getaddrinfo("127.0.0.1", "ht\0tp").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("service") && error.to_string().contains("NUL"), "{error}");
}

#[test]
fn a_name_that_does_not_resolve_is_a_gai_error_that_names_it() {
    let mut refusals = refusals_of_host_and_port(NO_SUCH_NAME, 80, AF_INET);
    refusals.push(("getaddrinfo", getaddrinfo(NO_SUCH_NAME, 80).unwrap_err()));
    for (call, error) in refusals {
        let gai = GaiError::of(&error).unwrap_or_else(|| panic!("{call}: no GaiError in {error:?}"));
        assert_eq!((gai.code(), gai.name()), (EAI_NONAME, "EAI_NONAME"), "{call}");
        let text = error.to_string();
        assert!(text.contains(NO_SUCH_NAME) && text.contains("EAI_NONAME"), "{call}: {text}");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{call}: {text}");
        assert_eq!(errno(&error), None, "{call}: {text}");
    }
}

#[test]
fn an_unknown_service_is_a_gai_error_that_names_it() {
    let error = getaddrinfo("127.0.0.1", "no-such-service").unwrap_err();
    assert!(GaiError::of(&error).is_some(), "{error:?}");
    assert!(error.to_string().contains("no-such-service"), "{error}");
}

/// As in Python: if several parts are invalid, the host is reported first.
#[test]
fn an_invalid_host_is_reported_before_an_invalid_port() {
    let error = tcp().bind((NO_SUCH_NAME, 65_536)).unwrap_err();
    assert!(GaiError::of(&error).is_some(), "{error:?}");
}

#[test]
fn an_address_of_another_family_is_refused_with_both_families() {
    let v4: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let v6: SocketAddr = "[::1]:1".parse().unwrap();
    let path = Path::new("/tmp/x");
    for (refusals, families) in [
        (refusals(v4, AF_INET6), ["AF_INET,", "AF_INET6"]),
        (refusals(v6, AF_INET), ["AF_INET6", "AF_INET:"]),
        (refusals(path, AF_INET), ["AF_UNIX", "AF_INET:"]),
        (refusals("/tmp/x", AF_INET6), ["AF_UNIX", "AF_INET6"]),
        (refusals(b"\0name", AF_INET), ["AF_UNIX", "AF_INET:"]),
        (refusals(v4, AF_UNIX), ["AF_INET,", "AF_UNIX"]),
        (refusals(("127.0.0.1", 1), AF_UNIX), ["internet address", "AF_UNIX"]),
        (refusals(("::1", 1, 0, 0), AF_UNIX), ["internet address", "AF_UNIX"]),
    ] {
        for (call, error) in &refusals {
            assert_eq!(errno_of(error), "EAFNOSUPPORT", "{call}: {error}");
        }
        assert_all_say(refusals, &families);
    }
}

#[test]
fn a_number_of_the_other_ip_version_does_not_resolve() {
    for (host, family) in [("::1", AF_INET), ("127.0.0.1", AF_INET6)] {
        for (call, error) in refusals((host, 1), family) {
            assert!(GaiError::of(&error).is_some(), "{call}: {error:?}");
            assert!(error.to_string().contains(host), "{call}: {error}");
            assert!(error.to_string().contains(&family.to_string()), "{call}: {error}");
        }
    }
}

#[test]
fn broadcast_is_an_ipv4_host_only() {
    let address = ("<broadcast>", 9).to_address(AF_INET).unwrap();
    assert_eq!(address.to_string(), "255.255.255.255:9");
    assert_all_say(refusals(("<broadcast>", 9), AF_INET6), &["<broadcast>", "IPv4", "AF_INET6"]);
}

#[test]
fn flowinfo_has_20_bits() {
    for flowinfo in [0x10_0000, 0x8000_0000, u32::MAX] {
        let not = format!("not {flowinfo}");
        assert_all_say(refusals(("::1", 1, flowinfo, 0), AF_INET6), &["flowinfo must be 0-1048575", &not]);
    }
    for flowinfo in [0, 1, 0xF_FFFF] {
        let address = (Ipv6Addr::LOCALHOST, 1, flowinfo, 0).to_address(AF_INET6).unwrap();
        let Address::Inet6(address) = address else { panic!("{address:?}") };
        assert_eq!(address.flowinfo(), flowinfo);
    }
}

#[test]
fn flowinfo_and_scope_id_are_not_ipv4s() {
    assert_all_say(refusals(("127.0.0.1", 1, 0, 0), AF_INET), &["flowinfo", "127.0.0.1", "not IPv6"]);
}

#[test]
fn no_address_at_all_is_refused() {
    assert_all_say(refusals(&Address::None, AF_INET), &["no address"]);
}

#[test]
fn a_unix_path_fits_up_to_107_bytes() {
    let folder = Folder::new("fits");
    let longest = |len: usize| {
        let start = folder.0.to_str().unwrap();
        format!("{start}/{}", "x".repeat(len - start.len() - 1))
    };
    let path = longest(107);
    let sock = unix();
    sock.bind(&path).unwrap();
    assert_eq!(sock.getsockname().unwrap().path(), Some(Path::new(&path)));
    assert!(Path::new(&path).exists());

    for len in [108, 109, 110, 1000, 100_000] {
        let path = longest(len);
        let refusals = refusals(&*path, AF_UNIX);
        for (call, error) in &refusals {
            assert_eq!(errno_of(error), "ENAMETOOLONG", "{call}: {error}");
        }
        assert_all_say(refusals, &["AF_UNIX path too long", &path, &len.to_string(), "107"]);
    }
    assert_eq!(folder.entries(), 1, "a path that was cut was bound");
}

/// Python binds what is before the NUL, another file than was named.
#[test]
fn a_unix_path_with_a_nul_in_it_is_refused() {
    let folder = Folder::new("nul");
    for end in ["a\0b", "a\0"] {
        let path = folder.0.join(end);
        assert_all_say(refusals(&*path, AF_UNIX), &["AF_UNIX", "NUL", &format!("{path:?}")]);
    }
    let hidden = Address::Unix(UnixAddress::Path(PathBuf::from("\0name")));
    assert_all_say(refusals(&hidden, AF_UNIX), &["AF_UNIX", "NUL"]);
    assert_eq!(folder.entries(), 0, "what is before the NUL was bound");
}

#[test]
fn an_empty_unix_path_lets_linux_pick_a_name() {
    let sockets = [unix(), unix(), unix(), unix()];
    sockets[0].bind("").unwrap();
    sockets[1].bind(b"").unwrap();
    sockets[2].bind(Path::new("")).unwrap();
    sockets[3].bind(Address::Unix(UnixAddress::Unnamed)).unwrap();
    let mut names = BTreeSet::new();
    for sock in &sockets {
        let address = sock.getsockname().unwrap();
        let Address::Unix(UnixAddress::Abstract(name)) = &address else { panic!("{address:?}") };
        assert_eq!(name.len(), 5, "{address}");
        assert!(name.iter().all(u8::is_ascii_hexdigit), "{address}");
        names.insert(name.clone());
    }
    assert_eq!(names.len(), sockets.len(), "{names:?}");
}

#[test]
fn an_abstract_name_is_exact_to_the_last_byte() {
    let base = name_of("exact");
    let mut names = vec![base.clone()];
    for end in [&b"\0"[..], b"\0\0", b"\0a\0", b"\xff\xfe", b"/"] {
        names.push([&base[..], end].concat());
    }
    names.push([&base[..], &vec![b'x'; 108 - base.len()]].concat());
    // All at once: were a byte of one lost, two of them would be the same.
    let listeners: Vec<_> = names
        .iter()
        .map(|name| {
            let listener = unix();
            listener.bind(name).unwrap();
            listener.listen(1).unwrap();
            assert_eq!(
                listener.getsockname().unwrap(),
                Address::Unix(UnixAddress::Abstract(name[1..].into()))
            );
            listener
        })
        .collect();
    for (name, listener) in names.iter().zip(&listeners) {
        let client = unix();
        client.connect(name).unwrap();
        assert_eq!(client.getpeername().unwrap(), listener.getsockname().unwrap());
        listener.setblocking(false).unwrap();
        listener.accept().unwrap();
    }
    let error = unix().connect(&base[..base.len() - 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

#[test]
fn an_abstract_name_fits_up_to_107_bytes_behind_its_nul() {
    for len in [108, 109, 1000] {
        let name = [&b"\0"[..], &vec![b'x'; len]].concat();
        assert_all_say(refusals(&*name, AF_UNIX), &["AF_UNIX path too long", &len.to_string()]);
    }
}

#[test]
fn an_address_that_is_taken_is_the_systems_error_untouched() {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let error = tcp().bind(server.getsockname().unwrap()).unwrap_err();
    assert_eq!(error.raw_os_error().and_then(errno_name), Some("EADDRINUSE"));
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_second_bind_and_a_bind_to_a_foreign_address_return_the_systems_errors() {
    let sock = tcp();
    sock.bind(("127.0.0.1", 0)).unwrap();
    assert_eq!(errno_of(&sock.bind(("127.0.0.1", 0)).unwrap_err()), "EINVAL");
    // RFC 5737: reserved for documentation.
    assert_eq!(errno_of(&tcp().bind(("203.0.113.1", 0)).unwrap_err()), "EADDRNOTAVAIL");
}

/// The kind, the errno and the address are all still there.
#[track_caller]
fn assert_address_error(error: &io::Error, verb: &str, address: impl fmt::Display, errno: &str) {
    let inner = error.get_ref().unwrap_or_else(|| panic!("nothing inside {error:?}"));
    assert!(inner.is::<AddressError>(), "{error:?}");
    assert_eq!(errno_of(error), errno);
    assert_eq!(error.raw_os_error(), None);
    let cause = inner.source().and_then(|cause| cause.downcast_ref::<io::Error>()).unwrap();
    assert_eq!(error.kind(), cause.kind());
    let begin = format!("{verb} {address}: ");
    assert!(error.to_string().starts_with(&begin), "{error}");
    assert!(error.to_string().contains("os error"), "{error}");
}

#[test]
fn create_server_names_the_address_that_is_taken() {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let address = server.getsockname().unwrap();
    let error = create_server(("127.0.0.1", address.port().unwrap())).unwrap_err();
    assert_address_error(&error, "bind", &address, "EADDRINUSE");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);

    let options = ServerOptions::new().family(AF_INET6);
    let server = match create_server_with(("::1", 0), &options) {
        Ok(server) => server,
        Err(error) => return writeln!(io::stderr(), "SKIPPED: this machine has no IPv6: {error}").unwrap(),
    };
    let address = server.getsockname().unwrap();
    let error = create_server_with(("::1", address.port().unwrap()), &options).unwrap_err();
    assert_address_error(&error, "bind", &address, "EADDRINUSE");
    assert!(error.to_string().starts_with("bind [::1]:"), "{error}");
}

#[test]
fn create_connection_names_the_address_that_refused() {
    // Bound but not listening: the port stays reserved and refuses connections.
    let sock = tcp();
    sock.bind(("127.0.0.1", 0)).unwrap();
    let address = sock.getsockname().unwrap();
    let port = address.port().unwrap();
    let error = create_connection(("127.0.0.1", port)).unwrap_err();
    let attempts = ConnectError::of(&error).unwrap().attempts();
    assert_eq!(attempts.len(), 1);
    assert_eq!((&attempts[0].0, errno_of(&error)), (&address, "ECONNREFUSED"));
    assert!(error.to_string().starts_with(&format!("connect {address}: ")), "{error}");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_source_address_in_use_is_reported_by_create_connection() {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let address = server.getsockname().unwrap();
    let options = ConnectionOptions::new().source_address(address.clone());
    let error = create_connection_with(("127.0.0.1", address.port().unwrap()), &options).unwrap_err();
    assert_eq!((error.kind(), errno_of(&error)), (ErrorKind::AddrInUse, "EADDRINUSE"), "{error}");
}

#[test]
fn an_error_of_an_address_reads_the_same_for_a_main_that_returns_it() {
    for error in [
        create_connection((NO_SUCH_NAME, 1)).unwrap_err(),
        tcp().bind(Path::new("/tmp/x")).unwrap_err(),
        create_server(("203.0.113.1", 0)).unwrap_err(),
    ] {
        let shown = format!("{error:?}");
        assert!(shown.contains(&error.to_string()), "{shown}");
    }
}
