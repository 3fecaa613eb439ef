//! Which addresses may use a server: a list of rules, of which the first that matches decides.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::{IpNet, Ipv4Net};
use parking_lot::{Mutex, RwLock};
use sock::Address;

use crate::os::process::SharedWords;

/// As many rules a list may have. The memory for them is reserved in a server that forks.
const MAX_RULES: usize = 1024;

/// Rules that allow or deny addresses, as `allow` and `deny` of nginx.
///
/// The rules apply in their order, and the first one that matches decides. An address that no rule
/// matches is allowed, so a list of allowed networks ends with `deny(["all"])`.
///
/// A rule is a network such as `10.0.0.0/8`, an address, `all`, or `unix:` for the peers of Unix
/// sockets. An IPv4 address in an IPv6 socket (`::ffff:10.0.0.1`) is treated as an IPv4 address.
/// A list has at most 1,024 rules.
///
/// [`Builder::allow`](crate::Builder::allow) and [`Builder::deny`](crate::Builder::deny) set the
/// rules of a server. [`ServerHandle::set_access`](crate::ServerHandle::set_access) replaces them
/// while it serves. Not in Python.
///
/// # Examples
///
/// ```
/// use sockserver::AccessList;
///
/// let inside = AccessList::new().deny(["10.0.0.66"])?.allow(["10.0.0.0/8", "fd00::/8"])?.deny(["all"])?;
/// assert!(AccessList::new().allow(["10.0.0.1/8"]).is_err());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList {
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    allows: bool,
    target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    All,
    Unix,
    Network(IpNet),
}

impl AccessList {
    /// Creates a list without rules, which allows every address.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{AccessList, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).deny(["all"]).bind(("127.0.0.1", 0))?;
    /// server.handle().set_access(AccessList::new())?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().finished, 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> AccessList {
        AccessList::default()
    }

    /// Adds rules that allow these networks, behind the rules that the list has.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if a text is not a network, if an address has bits
    /// after its prefix, and if the list becomes too long.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::AccessList;
    ///
    /// let inside = AccessList::new().allow(["10.0.0.0/8", "::1"])?.deny(["all"])?;
    /// assert!(AccessList::new().allow(["10.0.0.1/8"]).is_err());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn allow<N: AsRef<str>>(self, networks: impl IntoIterator<Item = N>) -> io::Result<AccessList> {
        self.with(true, networks)
    }

    /// Adds rules that deny these networks, behind the rules that the list has.
    ///
    /// # Errors
    ///
    /// Returns an error if [`allow`](Self::allow) would return one.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{AccessList, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// server.handle().set_access(AccessList::new().deny(["127.0.0.1"])?)?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!((server.stats().denied, server.stats().rejected), (1, 1));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn deny<N: AsRef<str>>(self, networks: impl IntoIterator<Item = N>) -> io::Result<AccessList> {
        self.with(false, networks)
    }

    fn with<N: AsRef<str>>(
        mut self,
        allows: bool,
        networks: impl IntoIterator<Item = N>,
    ) -> io::Result<AccessList> {
        self.add(allows, networks)?;
        Ok(self)
    }

    /// Adds rules. Those before the first invalid text are added also if it fails.
    pub(crate) fn add<N: AsRef<str>>(
        &mut self,
        allows: bool,
        networks: impl IntoIterator<Item = N>,
    ) -> io::Result<()> {
        for network in networks {
            if self.rules.len() == MAX_RULES {
                return Err(invalid(format!("an access list has at most {MAX_RULES} rules")));
            }
            let target = match network.as_ref() {
                "all" => Target::All,
                "unix:" => Target::Unix,
                text => Target::Network(parse_network(text)?),
            };
            self.rules.push(Rule { allows, target });
        }
        Ok(())
    }

    /// Checks that each rule can have an effect.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if the last rule allows: whatever it does not match
    /// is allowed too.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.rules.last() {
            Some(rule) if rule.allows => {
                let sentence = "allow has no effect without a rule behind it that denies, such as \"all\"";
                Err(invalid(sentence.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl Rule {
    fn matches(&self, ip: Option<IpAddr>) -> bool {
        match (self.target, ip) {
            (Target::All, _) | (Target::Unix, None) => true,
            (Target::Network(network), Some(ip)) => network.contains(&ip),
            (Target::Unix, Some(_)) | (Target::Network(_), None) => false,
        }
    }

    /// Encodes the rule: whether it allows, its kind and the length of its prefix; the address.
    fn to_words(self) -> [u64; Rule::WORDS] {
        let (kind, prefix, ip) = match self.target {
            Target::All => (0, 0, Ipv6Addr::UNSPECIFIED),
            Target::Unix => (1, 0, Ipv6Addr::UNSPECIFIED),
            Target::Network(IpNet::V4(net)) => (2, net.prefix_len(), net.addr().to_ipv6_mapped()),
            Target::Network(IpNet::V6(net)) => (3, net.prefix_len(), net.addr()),
        };
        let bits = ip.to_bits();
        let head = u64::from(prefix) << 16 | kind << 8 | u64::from(self.allows);
        [head, (bits >> 64) as u64, bits as u64]
    }

    fn from_words([head, high, low]: [u64; Rule::WORDS]) -> Rule {
        let ip = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
        let prefix = (head >> 16) as u8;
        let network = match head >> 8 & 0xff {
            0 => None,
            1 => return Rule { allows: head & 1 != 0, target: Target::Unix },
            2 => ip.to_ipv4_mapped().and_then(|ip| IpNet::new(ip.into(), prefix).ok()),
            _ => IpNet::new(ip.into(), prefix).ok(),
        };
        Rule { allows: head & 1 != 0, target: network.map_or(Target::All, Target::Network) }
    }

    const WORDS: usize = 3;
}

/// Returns whether the first rule that matches allows the address, or none matches.
fn decide(mut rules: impl Iterator<Item = Rule>, ip: Option<IpAddr>) -> bool {
    rules.find(|rule| rule.matches(ip)).is_none_or(|rule| rule.allows)
}

/// The rules of a server, in all of its processes. They may be replaced while they are read.
pub(crate) enum AccessRules {
    Local {
        /// Without rules the lock is not taken.
        has_rules: AtomicBool,
        /// Held to read and to replace the rules. Nothing else runs under it.
        rules: RwLock<Vec<Rule>>,
    },
    /// Two lists, and how often they were replaced. Its lowest bit is the place of the list that
    /// applies. A process that is killed while it writes the other one leaves this one as it was.
    Shared {
        words: SharedWords,
        /// Held while the list that does not apply is written, and made the one that applies.
        replacing: Mutex<()>,
    },
}

/// The words of one list: the number of rules, and the rules.
const LIST_WORDS: usize = 1 + MAX_RULES * Rule::WORDS;

impl AccessRules {
    /// Creates the rules of a server, which may fork.
    pub(crate) fn new(access: &AccessList, forks: bool) -> io::Result<AccessRules> {
        let rules = match forks {
            false => AccessRules::Local { has_rules: AtomicBool::new(false), rules: RwLock::default() },
            true => AccessRules::Shared {
                words: SharedWords::new(1 + 2 * LIST_WORDS)?,
                replacing: Mutex::default(),
            },
        };
        rules.replace(access);
        Ok(rules)
    }

    /// Replaces the rules. It takes effect at once in all processes.
    pub(crate) fn replace(&self, access: &AccessList) {
        match self {
            AccessRules::Local { has_rules, rules } => {
                let mut rules = rules.write();
                rules.clone_from(&access.rules);
                has_rules.store(!rules.is_empty(), Ordering::Release);
            }
            AccessRules::Shared { words, replacing } => {
                let _replacing = replacing.lock();
                let version = words.get(0).load(Ordering::SeqCst);
                if version == 0 && access.rules.is_empty() {
                    return;
                }
                let start = list_start(version + 1);
                for (number, rule) in access.rules.iter().enumerate() {
                    for (word, value) in rule.to_words().into_iter().enumerate() {
                        let place = start + 1 + number * Rule::WORDS + word;
                        words.get(place).store(value, Ordering::SeqCst);
                    }
                }
                words.get(start).store(access.rules.len() as u64, Ordering::SeqCst);
                words.get(0).store(version + 1, Ordering::SeqCst);
            }
        }
    }

    /// Returns whether the address may use the server.
    #[inline]
    pub(crate) fn allows(&self, address: &Address) -> bool {
        let has_none = match self {
            AccessRules::Local { has_rules, .. } => !has_rules.load(Ordering::Acquire),
            AccessRules::Shared { words, .. } => words.get(0).load(Ordering::SeqCst) == 0,
        };
        has_none || self.decide(address)
    }

    /// It is apart so that the check of a list without rules is small.
    #[inline(never)]
    fn decide(&self, address: &Address) -> bool {
        match self {
            AccessRules::Local { rules, .. } => decide(rules.read().iter().copied(), canonical(address)),
            AccessRules::Shared { words, .. } => loop {
                let version = words.get(0).load(Ordering::SeqCst);
                let start = list_start(version);
                let word = |place| words.get(start + place).load(Ordering::SeqCst);
                let count = (word(0) as usize).min(MAX_RULES);
                let rule = |number| {
                    Rule::from_words(std::array::from_fn(|part| word(1 + number * Rule::WORDS + part)))
                };
                let allowed = decide((0..count).map(rule), canonical(address));
                // The list is written again only after the other one applies.
                if words.get(0).load(Ordering::SeqCst) == version {
                    return allowed;
                }
            },
        }
    }

    /// Separates the rules from those of the parent process, after a fork. They stay the same.
    pub(crate) fn renew(&self) -> io::Result<()> {
        let AccessRules::Shared { words, .. } = self else { return Ok(()) };
        if words.get(0).load(Ordering::SeqCst) == 0 {
            return words.renew();
        }
        let copy: Vec<u64> =
            (0..words.len()).map(|place| words.get(place).load(Ordering::SeqCst)).collect();
        words.renew()?;
        for (place, word) in copy.into_iter().enumerate() {
            words.get(place).store(word, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// The place of the list that applies after so many replacements.
fn list_start(version: u64) -> usize {
    1 + (version % 2) as usize * LIST_WORDS
}

/// Returns the IP address, `None` for the peer of a Unix socket.
fn canonical(address: &Address) -> Option<IpAddr> {
    address.ip().map(|ip| ip.to_canonical())
}

/// Why the address of a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Denial {
    /// By the access list.
    Access,
    /// By the accept rate.
    Rate,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denial::Access => "its address is denied",
            Denial::Rate => "its address exceeds the accept rate",
        })
    }
}

pub(crate) fn invalid(sentence: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, sentence)
}

/// Parses a network or a single address.
pub(crate) fn parse_network(text: &str) -> io::Result<IpNet> {
    let network = match text.parse::<IpAddr>() {
        Ok(ip) => IpNet::from(ip),
        Err(_) => text
            .parse::<IpNet>()
            .map_err(|_| invalid(format!("{text:?} is not an IP network such as 10.0.0.0/8")))?,
    };
    if network.addr() != network.network() {
        return Err(invalid(format!("the network {text} has bits after its prefix: {}", network.trunc())));
    }
    // A peer of this form is compared as an IPv4 address.
    if let (IpNet::V6(v6), IpAddr::V4(ip)) = (network, network.addr().to_canonical()) {
        if let Some(Ok(v4)) = v6.prefix_len().checked_sub(96).map(|len| Ipv4Net::new(ip, len)) {
            return Ok(v4.into());
        }
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn address(ip: &str) -> Address {
        SocketAddr::new(ip.parse().unwrap(), 1).into()
    }

    fn unix() -> Address {
        Address::Unix(sock::UnixAddress::Unnamed)
    }

    #[track_caller]
    fn check(list: &AccessList, expected: &[(&str, bool)], unix_expected: bool) {
        let kinds: &[bool] = if cfg!(unix) { &[false, true] } else { &[false] };
        for forks in kinds {
            let rules = AccessRules::new(list, *forks).unwrap();
            for (ip, allowed) in expected {
                assert_eq!(rules.allows(&address(ip)), *allowed, "{ip} in {list:?}");
            }
            assert_eq!(rules.allows(&unix()), unix_expected, "{list:?}");
            rules.renew().unwrap();
            assert_eq!(rules.allows(&unix()), unix_expected, "{list:?}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let new = AccessList::new;
        check(&new(), &[("192.0.2.1", true), ("::1", true)], true);
        let list = new().deny(["10.0.0.66"]).unwrap().allow(["10.0.0.0/8", "fd00::/8"]).unwrap();
        let list = list.deny(["all"]).unwrap();
        let expected = [
            ("10.0.0.66", false),
            ("10.0.0.65", true),
            ("11.0.0.1", false),
            ("::ffff:10.0.0.66", false),
            ("::ffff:10.0.0.65", true),
            ("fd00::1", true),
            ("fe80::1", false),
            ("::ffff:192.0.2.1", false),
        ];
        check(&list, &expected, false);
        let list = new().deny(["::ffff:192.0.2.0/120", "2001:db8::/32"]).unwrap();
        let expected = [("192.0.2.7", false), ("192.0.3.7", true), ("2001:db8:1::", false), ("::1", true)];
        check(&list, &expected, true);
        check(&new().deny(["unix:"]).unwrap(), &[("192.0.2.7", true), ("::1", true)], false);
        let list = new().allow(["unix:"]).unwrap().deny(["all"]).unwrap();
        check(&list, &[("192.0.2.7", false), ("::1", false)], true);
        let list = new().deny(["0.0.0.0/0"]).unwrap();
        check(&list, &[("192.0.2.7", false), ("::1", true), ("::ffff:1.2.3.4", false)], true);
        let list = new().deny(["::/0"]).unwrap();
        check(&list, &[("192.0.2.7", true), ("::1", false), ("::ffff:1.2.3.4", true)], true);
    }

    #[test]
    fn rules_that_are_invalid_or_have_no_effect_are_refused() {
        for text in ["", "10.0.0.1/8", "10.0.0.0/33", "example.org", "ALL", "all ", "unix"] {
            assert!(AccessList::new().deny([text]).is_err(), "{text:?}");
        }
        let list = AccessList::new().deny(["all"]).unwrap();
        list.check().unwrap();
        let error = list.allow(["10.0.0.0/8"]).unwrap().check().unwrap_err();
        assert!(error.to_string().starts_with("allow has no effect"), "{error}");
        AccessList::new().check().unwrap();
        let most = AccessList::new().deny(["10.0.0.1"; MAX_RULES]).unwrap();
        check(&most, &[("10.0.0.1", false), ("10.0.0.2", true)], true);
        assert!(most.deny(["10.0.0.1"]).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn each_decision_is_that_of_one_list_while_lists_are_replaced() {
        // Each list denies the address, by another rule.
        let lists = ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.1", "all"]
            .map(|network| AccessList::new().allow(["192.0.2.0/24"; 20]).unwrap().deny([network]).unwrap());
        let rules = AccessRules::new(&lists[0], true).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..20_000 {
                    rules.replace(&lists[round % lists.len()]);
                }
                done.store(true, Ordering::SeqCst);
            });
            while !done.load(Ordering::SeqCst) {
                assert!(!rules.allows(&address("10.0.0.1")));
                assert!(rules.allows(&address("192.0.2.1")));
            }
        });
    }
}
