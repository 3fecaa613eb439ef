//! The constants of `<sys/socket.h>` and related headers, as in Python's module.
//!
//! Families, socket types and flags have types of their own, which print their names. Protocols,
//! levels and options are plain `i32`, as in C. The constants and their values depend on the
//! platform, as in Python.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use crate::sys::{self, c, with_names};

/// The direction that [`Socket::shutdown`](crate::Socket::shutdown) shuts down.
pub use std::net::Shutdown;

/// Shuts down receiving. Python: `socket.SHUT_RD`.
pub const SHUT_RD: Shutdown = Shutdown::Read;
/// Shuts down sending, so the peer reads the end of file. Python: `socket.SHUT_WR`.
pub const SHUT_WR: Shutdown = Shutdown::Write;
/// Shuts down receiving and sending. Python: `socket.SHUT_RDWR`.
pub const SHUT_RDWR: Shutdown = Shutdown::Both;

macro_rules! number {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(i32);

        impl $type {
            /// Returns the platform's number.
            ///
            /// # Examples
            ///
            /// ```
            /// use sock::{AF_INET, AddressFamily};
            ///
            /// assert_eq!(AddressFamily::from(AF_INET.as_raw()), AF_INET);  // int(socket.AF_INET)
            /// ```
            #[must_use]
            pub const fn as_raw(self) -> i32 {
                self.0
            }
        }

        /// Accepts any number, because the system may support more than this crate lists.
        impl From<i32> for $type {
            fn from(raw: i32) -> Self {
                $type(raw)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

macro_rules! bits {
    ($type:ident) => {
        impl $type {
            /// No flags.
            pub const NONE: $type = $type(0);

            /// Returns whether every flag of `other` is in `self`.
            ///
            /// # Examples
            ///
            /// ```
            /// use sock::{AI_CANONNAME, AI_PASSIVE, MSG_DONTWAIT, MSG_PEEK};
            ///
            /// assert!((MSG_PEEK | MSG_DONTWAIT).contains(MSG_PEEK));
            /// assert!(!AI_PASSIVE.contains(AI_CANONNAME));
            /// # #[cfg(target_os = "linux")]
            /// assert!((sock::SOCK_STREAM | sock::SOCK_NONBLOCK).contains(sock::SOCK_NONBLOCK));
            /// ```
            #[must_use]
            pub const fn contains(self, other: $type) -> bool {
                self.0 & other.0 == other.0
            }

            /// Returns `self` without the flags of `other`.
            ///
            /// # Examples
            ///
            /// ```
            /// use sock::{AI_CANONNAME, AI_PASSIVE, MSG_DONTWAIT, MSG_PEEK};
            ///
            /// assert_eq!((MSG_PEEK | MSG_DONTWAIT).without(MSG_DONTWAIT), MSG_PEEK);
            /// assert_eq!((AI_PASSIVE | AI_CANONNAME).without(AI_CANONNAME), AI_PASSIVE);
            /// # #[cfg(target_os = "linux")]
            /// assert_eq!((sock::SOCK_STREAM | sock::SOCK_NONBLOCK).without(sock::SOCK_NONBLOCK), sock::SOCK_STREAM);
            /// ```
            #[must_use]
            pub const fn without(self, other: $type) -> $type {
                $type(self.0 & !other.0)
            }
        }

        impl BitOr for $type {
            type Output = $type;

            fn bitor(self, other: $type) -> $type {
                $type(self.0 | other.0)
            }
        }

        impl BitOrAssign for $type {
            fn bitor_assign(&mut self, other: $type) {
                self.0 |= other.0;
            }
        }
    };
}

/// Defines a constant for each name, and the list of names for printing.
macro_rules! constants {
    ($type:ident, $names:ident, $doc:literal: $($name:ident)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`: ", $doc)]
            #[allow(non_upper_case_globals, reason = "C spells AF_DECnet so")]
            pub const $name: $type = $type(c::$name as i32);
        )*
        const $names: &[(i32, &str)] = &[$((c::$name as i32, stringify!($name))),*];
    };
}

/// Defines the same for plain numbers.
macro_rules! numbers {
    ($type:ident, $names:ident, $doc:literal: $($name:ident)*) => {
        numbers! { $type, $doc: $($name)* }
        const $names: &[($type, &str)] = &[$(($name, stringify!($name))),*];
    };
    ($type:ident, $doc:literal: $($name:ident)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`: ", $doc)]
            pub const $name: $type = c::$name as $type;
        )*
    };
}

number! {
    /// An address family, such as [`AF_INET`]. Python: `socket.AddressFamily`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, AddressFamily};
    ///
    /// let family: AddressFamily = AF_INET;
    /// assert_eq!(family.to_string(), "AF_INET");
    /// ```
    AddressFamily
}
number! {
    /// A type of socket, such as [`SOCK_STREAM`]. Python: `socket.SocketKind`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{SOCK_STREAM, SocketKind};
    ///
    /// let kind: SocketKind = SOCK_STREAM;
    /// assert_eq!(kind.to_string(), "SOCK_STREAM");
    /// ```
    SocketKind
}
number! {
    /// Flags of a send or receive call, such as [`MSG_PEEK`]. Python: `socket.MsgFlag`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{MSG_PEEK, MSG_WAITALL, MsgFlags};
    ///
    /// let flags: MsgFlags = MSG_PEEK | MSG_WAITALL;
    /// assert!(flags.contains(MSG_WAITALL));
    /// ```
    MsgFlags
}
number! {
    /// Flags of [`getaddrinfo`](crate::getaddrinfo), such as [`AI_PASSIVE`]. Python: `socket.AddressInfo`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AI_NUMERICHOST, AI_PASSIVE, AddressInfo};
    ///
    /// let flags: AddressInfo = AI_PASSIVE | AI_NUMERICHOST;
    /// assert!(flags.contains(AI_PASSIVE));
    /// ```
    AddressInfo
}
bits!(SocketKind);

impl SocketKind {
    pub(crate) const fn from_raw_bits(bits: i32) -> SocketKind {
        SocketKind(bits)
    }
}

bits!(MsgFlags);
bits!(AddressInfo);

with_names! { AF constants! AddressFamily, FAMILIES, "an address family; see address_families(7)": }
with_names! { SOCK constants! SocketKind, KINDS, "a type of socket; see socket(2)": }
with_names! { MSG constants! MsgFlags, MESSAGE_FLAGS, "a flag of send and receive calls; see send(2) and recv(2)": }
with_names! { AI constants! AddressInfo, ADDRESS_INFO, "a flag of getaddrinfo(3)": }
with_names! { EAI numbers! i32, GAI_CODES, "an error code of getaddrinfo(3)": }
with_names! { LEVELS numbers! i32, LEVEL_NAMES, "a protocol, or a level of setsockopt(2)": }
with_names! { SO numbers! i32, SO_NAMES, "an option at level `SOL_SOCKET`; see socket(7)": }
with_names! { TCP numbers! i32, TCP_NAMES, "an option at level `IPPROTO_TCP`; see tcp(7)": }
with_names! { IP numbers! i32, IP_NAMES, "an option at level `IPPROTO_IP`; see ip(7)": }
with_names! { IPV6 numbers! i32, IPV6_NAMES, "an option at level `IPPROTO_IPV6`; see ipv6(7)": }
with_names! { UNSIGNED numbers! u32, "a constant named after its family": }
with_names! { VALUES numbers! i32, "a constant named after its family": }

/// Returns the names and values of all constants of this crate, typed and plain.
///
/// Python: the integers in `dir(socket)`. No system call. For programs that export the constants or
/// compare them with another system's.
///
/// # Examples
///
/// ```
/// let found = sock::constants().into_iter().find(|(name, _)| *name == "SOCK_STREAM");
/// assert_eq!(found, Some(("SOCK_STREAM", sock::SOCK_STREAM.as_raw().into())));
/// ```
#[must_use]
pub fn constants() -> Vec<(&'static str, i64)> {
    /// The names and numbers of a group of constants.
    macro_rules! listed {
        ($list:ident, $type:ident: $($name:ident)*) => {
            $list.extend([$((stringify!($name), i64::from(c::$name as $type))),*]);
        };
    }
    // The arguments of shutdown(2) are an enum here. POSIX defines their numbers.
    let mut list = vec![("SHUT_RD", 0), ("SHUT_WR", 1), ("SHUT_RDWR", 2)];
    with_names! { AF listed! list, i32: }
    with_names! { SOCK listed! list, i32: }
    with_names! { MSG listed! list, i32: }
    with_names! { AI listed! list, i32: }
    with_names! { EAI listed! list, i32: }
    with_names! { LEVELS listed! list, i32: }
    with_names! { SO listed! list, i32: }
    with_names! { TCP listed! list, i32: }
    with_names! { IP listed! list, i32: }
    with_names! { IPV6 listed! list, i32: }
    with_names! { UNSIGNED listed! list, u32: }
    with_names! { VALUES listed! list, i32: }
    list
}

fn lookup(names: &[(i32, &'static str)], number: i32) -> Option<&'static str> {
    names.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// Prints `MSG_PEEK|MSG_DONTWAIT|0x100000`, or `0` for no flags.
fn print_bits(names: &[(i32, &'static str)], bits: i32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut rest = bits;
    let mut separator = "";
    for &(bit, name) in names {
        if bit != 0 && rest & bit == bit {
            write!(f, "{separator}{name}")?;
            rest &= !bit;
            separator = "|";
        }
    }
    match (rest, separator) {
        (0, "") => f.write_str("0"),
        (0, _) => Ok(()),
        (rest, separator) => write!(f, "{separator}{rest:#x}"),
    }
}

impl fmt::Display for AddressFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match lookup(FAMILIES, self.0) {
            Some(name) => f.pad(name),
            None => write!(f, "AF_{}", self.0),
        }
    }
}

impl SocketKind {
    /// Returns the type without flags: `SOCK_STREAM` for `SOCK_STREAM | SOCK_NONBLOCK`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use sock::{SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM};
    ///
    /// assert_eq!((SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC).without_flags(), SOCK_STREAM);
    /// # }
    /// ```
    #[must_use]
    pub fn without_flags(self) -> SocketKind {
        let flags = sys::KIND_FLAGS.iter().fold(0, |flags, (flag, _)| flags | flag);
        SocketKind(self.0 & !flags)
    }

    /// Returns whether it has the flag `SOCK_NONBLOCK`, on systems that support it.
    pub(crate) fn is_nonblocking(self) -> bool {
        sys::KIND_FLAGS
            .iter()
            .any(|&(flag, name)| name == "SOCK_NONBLOCK" && flag != 0 && self.0 & flag == flag)
    }
}

impl fmt::Display for SocketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.without_flags();
        match lookup(KINDS, kind.0) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "SOCK_{}", kind.0)?,
        }
        for (flag, name) in sys::KIND_FLAGS {
            if flag != 0 && self.0 & flag == flag {
                write!(f, "|{name}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for MsgFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_bits(MESSAGE_FLAGS, self.0, f)
    }
}

impl fmt::Display for AddressInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_bits(ADDRESS_INFO, self.0, f)
    }
}

/// Returns the name of a `getaddrinfo` error code.
pub(crate) fn gai_name(code: i32) -> Option<&'static str> {
    lookup(GAI_CODES, code)
}

/// Prints a level of `setsockopt` by name.
pub(crate) struct LevelName(pub(crate) i32);

impl fmt::Display for LevelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.0 == SOL_SOCKET { Some("SOL_SOCKET") } else { lookup(LEVEL_NAMES, self.0) };
        match name {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Prints an option by name, which depends on the level.
pub(crate) struct OptionName(pub(crate) i32, pub(crate) i32);

impl fmt::Display for OptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OptionName(level, option) = *self;
        let names = match level {
            SOL_SOCKET => SO_NAMES,
            IPPROTO_TCP => TCP_NAMES,
            IPPROTO_IP => IP_NAMES,
            IPPROTO_IPV6 => IPV6_NAMES,
            _ => &[],
        };
        match lookup(names, option) {
            Some(name) => f.write_str(name),
            None => write!(f, "{option}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_their_names() {
        assert_eq!(format!("{AF_INET:?}"), "AF_INET");
        assert_eq!(format!("{:?}", AddressFamily::from(9999)), "AF_9999");
        assert_eq!(format!("{:?}", SOCK_STREAM), "SOCK_STREAM");
        assert_eq!(MsgFlags::NONE.to_string(), "0");
        assert_eq!((MSG_PEEK | MSG_OOB).to_string(), "MSG_OOB|MSG_PEEK");
        assert_eq!(LevelName(SOL_SOCKET).to_string(), "SOL_SOCKET");
        assert_eq!(OptionName(SOL_SOCKET, SO_REUSEADDR).to_string(), "SO_REUSEADDR");
        assert_eq!(OptionName(IPPROTO_TCP, TCP_NODELAY).to_string(), "TCP_NODELAY");
    }

    #[cfg(target_os = "linux")]
    mod linux {
        use super::*;

        #[test]
        fn flags_of_a_socket_type_are_printed_after_it() {
            assert_eq!((SOCK_DGRAM | SOCK_NONBLOCK).to_string(), "SOCK_DGRAM|SOCK_NONBLOCK");
        }

        /// Compares with Python's list. Without Python it prints that the test was left out.
        #[test]
        fn every_constant_of_cpython_is_here_with_its_value() {
            let script = "import _socket as s, sys\nprint('version', sys.version_info[1])\nfor n in dir(s):\n v = getattr(s, n)\n \
                          if type(v) is int and n[0] != '_': print(n, v)";
            let Ok(python) = std::process::Command::new("python3").args(["-c", script]).output() else {
                eprintln!("no python3: constants are not compared");
                return;
            };
            let ours = constants();
            let text = String::from_utf8(python.stdout).unwrap();
            let theirs: Vec<(&str, i64)> = text
                .lines()
                .filter_map(|line| line.split_once(' '))
                .map(|(name, value)| (name, value.parse().unwrap()))
                .collect();
            let (version, theirs) = theirs.split_first().expect("python3 prints its constants");
            // Bluetooth constants depend on how CPython was built.
            let of_bluetooth =
                |name: &str| ["BLUETOOTH", "BTPROTO", "BDADDR", "HCI"].iter().any(|b| name.contains(b));
            let (known, missing): (Vec<_>, Vec<_>) =
                theirs.iter().copied().partition(|(name, _)| ours.iter().any(|(our, _)| our == name));
            let missing: Vec<_> = missing.into_iter().filter(|(name, _)| !of_bluetooth(name)).collect();
            // The list is that of 3.11. Newer versions have more.
            assert!(missing.is_empty() || *version != ("version", 11), "missing: {missing:?}");
            assert!(known.len() > 300, "{} in common", known.len());
            for (name, value) in known {
                let (_, ours) = *ours.iter().find(|(our, _)| *our == name).unwrap();
                assert_eq!(value, ours, "{name}");
            }
        }
    }
}
