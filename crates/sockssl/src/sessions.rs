//! Session resumption. No session is resumed after a certificate it depends on has expired.
//!
//! A resumed handshake transfers no certificate, and the TLS library verifies none. So each
//! session stores the time until which its verification is valid: the earliest end of validity
//! in the peer's chain, of a trusted authority, or of a revocation list. After that time the
//! session is not used, and a full handshake verifies the peer. The other inputs of the
//! verification are settings of the context. When they change, the context drops its sessions.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::cert::validity::{NEVER_EXPIRES, chain_valid_until, current_validity, limit_validity};
use crate::error::misconfigured;
use crate::provider;
use crate::stats::{Counters, increment};

/// The sessions of a server. They are replaced when the verification of clients changes, because
/// the certificate of a resumed session is not verified again.
#[derive(Clone)]
pub(crate) struct Sessions {
    pub(crate) ticketer: Arc<dyn ProducesTickets>,
    pub(crate) store: Arc<dyn StoresServerSessions>,
}

/// The space for a client's certificate chain, which the ticket contains.
const MAX_TICKET_LEN: usize = 16 * 1024;

impl Sessions {
    pub(crate) fn new(counters: &Arc<Counters>) -> io::Result<Sessions> {
        let ticketer = provider::ticketer().map_err(|error| misconfigured(error.to_string()))?;
        // The library rejects tickets that are longer than the longest one it has created. A
        // forked child that has created none would reject all of them.
        ticketer.encrypt(&[0; MAX_TICKET_LEN]);
        let store = ServerSessionMemoryCache::new(1024);
        Ok(Sessions {
            ticketer: Arc::new(ExpiringSessions { inner: ticketer, counters: Arc::clone(counters) }),
            store: Arc::new(ExpiringSessions { inner: store, counters: Arc::clone(counters) }),
        })
    }
}

/// Prepends to each session the time until which it may be resumed, and enforces it.
#[derive(Debug)]
struct ExpiringSessions<T: ?Sized> {
    counters: Arc<Counters>,
    inner: Arc<T>,
}

fn prepend_expiry(session: &[u8]) -> Vec<u8> {
    [&current_validity().to_be_bytes(), session].concat()
}

/// Returns the session if it has not expired, and limits the validity of the next one to its own.
fn strip_expiry(limited: Vec<u8>) -> Option<Vec<u8>> {
    let (until, session) = limited.split_first_chunk()?;
    let until = u64::from_be_bytes(*until);
    if UnixTime::now().as_secs() > until {
        return None;
    }
    limit_validity(until);
    Some(session.to_vec())
}

impl ProducesTickets for ExpiringSessions<dyn ProducesTickets> {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        let left = current_validity().saturating_sub(UnixTime::now().as_secs());
        self.inner.lifetime().min(u32::try_from(left).unwrap_or(u32::MAX))
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        increment(&self.counters.tickets);
        self.inner.encrypt(&prepend_expiry(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.inner.decrypt(cipher).and_then(strip_expiry);
        if plain.is_none() {
            increment(&self.counters.misses);
        }
        plain
    }
}

impl<T: StoresServerSessions> StoresServerSessions for ExpiringSessions<T> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.inner.put(key, prepend_expiry(&value))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.get(key).and_then(strip_expiry)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.take(key).and_then(strip_expiry)
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}

/// The number of servers whose sessions a client keeps, and the number of tickets for each.
const MAX_SERVERS: usize = 64;
const MAX_TICKETS: usize = 8;

/// The sessions of a client context, by server name. The lock is held to change and copy the map only.
#[derive(Default)]
pub(crate) struct ClientSessions(Mutex<Servers>);

#[derive(Default)]
struct Servers {
    by_name: HashMap<ServerName<'static>, Server>,
    /// The oldest first.
    order: VecDeque<ServerName<'static>>,
}

#[derive(Default)]
struct Server {
    group: Option<NamedGroup>,
    tls12: Option<(u64, Tls12ClientSessionValue)>,
    tls13: VecDeque<(u64, Tls13ClientSessionValue)>,
}

impl Servers {
    fn entry(&mut self, name: ServerName<'static>) -> &mut Server {
        if !self.by_name.contains_key(&name) {
            if self.order.len() == MAX_SERVERS {
                if let Some(oldest) = self.order.pop_front() {
                    self.by_name.remove(&oldest);
                }
            }
            self.order.push_back(name.clone());
        }
        self.by_name.entry(name).or_default()
    }
}

/// The session store of one connection. The library's callbacks do not say which connection a
/// session belongs to, so each connection has its own store.
pub(crate) struct ConnectionSessions {
    shared: Arc<ClientSessions>,
    verifies_peer: bool,
    valid_until: OnceLock<u64>,
    /// The validity of the session that was offered to the server.
    offered: AtomicU64,
}

impl ConnectionSessions {
    /// Creates the store of a client connection, which verifies the server or does not.
    pub(crate) fn new(shared: Arc<ClientSessions>, verifies_peer: bool) -> ConnectionSessions {
        ConnectionSessions {
            shared,
            verifies_peer,
            valid_until: OnceLock::new(),
            offered: AtomicU64::new(NEVER_EXPIRES),
        }
    }

    /// Records the server's chain before a session arrives. The chain of a resumed session was
    /// verified in the first handshake, so its validity does not change.
    pub(crate) fn record_chain(&self, chain: Option<&[CertificateDer<'_>]>, is_resumed: bool) {
        if let Some(chain) = chain.filter(|_| self.valid_until.get().is_none()) {
            let until = match (self.verifies_peer, is_resumed) {
                (false, _) => NEVER_EXPIRES,
                (true, true) => self.offered.load(Ordering::Relaxed),
                (true, false) => chain_valid_until(chain, UnixTime::now()),
            };
            let _ = self.valid_until.set(until);
        }
    }

    fn offer<T>(&self, (until, session): (u64, T)) -> T {
        self.offered.store(until, Ordering::Relaxed);
        session
    }
}

fn is_current(until: u64) -> bool {
    UnixTime::now().as_secs() <= until
}

impl ClientSessionStore for ConnectionSessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.shared.0.lock().entry(server_name).group = Some(group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.shared.0.lock().by_name.get(&server_name.to_owned())?.group
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        if let Some(&until) = self.valid_until.get() {
            self.shared.0.lock().entry(server_name).tls12 = Some((until, value));
        }
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let servers = self.shared.0.lock();
        let (until, session) = servers.by_name.get(&server_name.to_owned())?.tls12.as_ref()?;
        is_current(*until).then(|| self.offer((*until, session.clone())))
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        if let Some(server) = self.shared.0.lock().by_name.get_mut(server_name) {
            server.tls12 = None;
        }
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        let Some(&until) = self.valid_until.get() else { return };
        let mut servers = self.shared.0.lock();
        let tickets = &mut servers.entry(server_name).tls13;
        if tickets.len() == MAX_TICKETS {
            tickets.pop_front();
        }
        tickets.push_back((until, value));
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut servers = self.shared.0.lock();
        let tickets = &mut servers.by_name.get_mut(server_name)?.tls13;
        tickets.retain(|(until, _)| is_current(*until));
        tickets.pop_back().map(|ticket| self.offer(ticket))
    }
}

impl fmt::Debug for ConnectionSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionSessions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::validity::with_validity;

    /// Clients may offer a ticket after its lifetime.
    #[test]
    fn an_expired_session_is_not_returned() {
        let sessions = Sessions::new(&Arc::default()).unwrap();
        let now = UnixTime::now().as_secs();
        for (until, is_current) in [(now - 1, false), (now + 1000, true), (NEVER_EXPIRES, true)] {
            let mut validity = until;
            let (ticket, lifetime) = with_validity(&mut validity, || {
                assert!(sessions.store.put(b"id".to_vec(), b"session".to_vec()));
                (sessions.ticketer.encrypt(b"session").unwrap(), sessions.ticketer.lifetime())
            });
            assert_eq!(validity, until);
            assert!(u64::from(lifetime) <= until.saturating_sub(now));
            let expected = is_current.then(|| b"session".to_vec());
            for take in [
                &(|| sessions.ticketer.decrypt(&ticket)) as &dyn Fn() -> _,
                &|| sessions.store.get(b"id"),
                &|| sessions.store.take(b"id"),
            ] {
                let mut validity = NEVER_EXPIRES;
                assert_eq!(with_validity(&mut validity, take), expected, "{until}");
                // The next session expires no later.
                assert_eq!(validity, if is_current { until } else { NEVER_EXPIRES });
            }
        }
        assert!(sessions.ticketer.lifetime() > 0);
    }

    #[test]
    fn a_chain_is_valid_until_its_first_valid_certificate_expires() {
        let until = |seconds| {
            let mut params = rcgen::CertificateParams::new([]).unwrap();
            params.not_after = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            let key = rcgen::KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().der().clone()
        };
        let (before, now, after) =
            (until(1_999_999_999), UnixTime::since_unix_epoch(NOW), until(2_000_000_001));
        const NOW: std::time::Duration = std::time::Duration::from_secs(2_000_000_000);
        for (chain, expected) in [
            (vec![&after, &before], 2_000_000_001),
            (vec![&before, &after], 1_999_999_999),
            (vec![], NEVER_EXPIRES),
        ] {
            assert_eq!(chain_valid_until(chain, now), expected);
        }
        let broken = CertificateDer::from(vec![0]);
        assert_eq!(chain_valid_until([&after, &broken], now), 2_000_000_000);
    }

    /// Otherwise a session could be renewed forever.
    #[test]
    fn a_resumed_session_keeps_its_expiry() {
        for (verifies_peer, is_resumed, expected) in
            [(true, true, 7), (true, false, NEVER_EXPIRES), (false, true, NEVER_EXPIRES)]
        {
            let sessions = ConnectionSessions::new(Arc::default(), verifies_peer);
            sessions.offer((7, ()));
            sessions.record_chain(Some(&[]), is_resumed);
            assert_eq!(sessions.valid_until.get(), Some(&expected));
        }
    }
}
