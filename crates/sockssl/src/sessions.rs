//! Sessions that are resumed: none outlives the certificates it stands for.
//!
//! A resumed handshake shows no certificate, and the TLS library judges none. So each
//! session has a time until which its judgement holds: the first end of validity in the
//! peer's chain, of a trusted authority, or of a revocation list. After that the session
//! is not used, and a whole handshake judges the peer as it is then. What else a judgement
//! depends on is a setting of the context, which starts with no session when it changes.

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
use crate::stats::{Counters, count};

/// What a server remembers of its clients, to go on with where it was. Made anew
/// when it judges clients in another way: a resumed session is not judged.
#[derive(Clone)]
pub(crate) struct Sessions {
    pub(crate) ticketer: Arc<dyn ProducesTickets>,
    pub(crate) store: Arc<dyn StoresServerSessions>,
}

/// Room for a client's certificate with its chain, which is in the ticket.
const LONGEST_TICKET: usize = 16 * 1024;

impl Sessions {
    pub(crate) fn new(counters: &Arc<Counters>) -> io::Result<Sessions> {
        let ticketer = provider::ticketer().map_err(|error| misconfigured(error.to_string()))?;
        // The library opens no ticket that is longer than those it has made: in a child
        // that has made none yet, none at all.
        ticketer.encrypt(&[0; LONGEST_TICKET]);
        let store = ServerSessionMemoryCache::new(1024);
        Ok(Sessions {
            ticketer: Arc::new(Limited { inner: ticketer, counters: Arc::clone(counters) }),
            store: Arc::new(Limited { inner: store, counters: Arc::clone(counters) }),
        })
    }
}

/// Writes into each session until when it may be resumed, and heeds that.
#[derive(Debug)]
struct Limited<T: ?Sized> {
    counters: Arc<Counters>,
    inner: Arc<T>,
}

fn with_limit(session: &[u8]) -> Vec<u8> {
    [&current_validity().to_be_bytes(), session].concat()
}

/// The session, if it may still be resumed. Then the next one ends no later.
fn within_limit(limited: Vec<u8>) -> Option<Vec<u8>> {
    let (until, session) = limited.split_first_chunk()?;
    let until = u64::from_be_bytes(*until);
    if UnixTime::now().as_secs() > until {
        return None;
    }
    limit_validity(until);
    Some(session.to_vec())
}

impl ProducesTickets for Limited<dyn ProducesTickets> {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        let left = current_validity().saturating_sub(UnixTime::now().as_secs());
        self.inner.lifetime().min(u32::try_from(left).unwrap_or(u32::MAX))
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        count(&self.counters.tickets);
        self.inner.encrypt(&with_limit(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.inner.decrypt(cipher).and_then(within_limit);
        if plain.is_none() {
            count(&self.counters.misses);
        }
        plain
    }
}

impl<T: StoresServerSessions> StoresServerSessions for Limited<T> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.inner.put(key, with_limit(&value))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.get(key).and_then(within_limit)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.take(key).and_then(within_limit)
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}

/// So many servers a client remembers, and so many tickets of each.
const SERVERS: usize = 64;
const TICKETS: usize = 8;

/// What a client remembers of its servers.
#[derive(Default)]
pub(crate) struct ClientSessions(Mutex<Servers>);

#[derive(Default)]
struct Servers {
    known: HashMap<ServerName<'static>, Server>,
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
    fn of(&mut self, name: ServerName<'static>) -> &mut Server {
        if !self.known.contains_key(&name) {
            if self.order.len() == SERVERS {
                if let Some(oldest) = self.order.pop_front() {
                    self.known.remove(&oldest);
                }
            }
            self.order.push_back(name.clone());
        }
        self.known.entry(name).or_default()
    }
}

/// The sessions of a context, as one of its connections sees them: it knows whose they
/// are, which the library does not tell.
pub(crate) struct ConnectionSessions {
    shared: Arc<ClientSessions>,
    judges: bool,
    until: OnceLock<u64>,
    /// The end of the session that was offered to the server.
    offered: AtomicU64,
}

impl ConnectionSessions {
    /// Of a client that judges its servers, or does not.
    pub(crate) fn new(shared: Arc<ClientSessions>, judges: bool) -> ConnectionSessions {
        ConnectionSessions {
            shared,
            judges,
            until: OnceLock::new(),
            offered: AtomicU64::new(NEVER_EXPIRES),
        }
    }

    /// Learns the server's chain, before it gives a session. One that was not shown now, but
    /// is that of a resumed session, was judged when the first session began.
    pub(crate) fn learn(&self, chain: Option<&[CertificateDer<'_>]>, is_resumed: bool) {
        if let Some(chain) = chain.filter(|_| self.until.get().is_none()) {
            let until = match (self.judges, is_resumed) {
                (false, _) => NEVER_EXPIRES,
                (true, true) => self.offered.load(Ordering::Relaxed),
                (true, false) => chain_valid_until(chain, UnixTime::now()),
            };
            let _ = self.until.set(until);
        }
    }

    fn offer<T>(&self, (until, session): (u64, T)) -> T {
        self.offered.store(until, Ordering::Relaxed);
        session
    }
}

fn holds(until: u64) -> bool {
    UnixTime::now().as_secs() <= until
}

impl ClientSessionStore for ConnectionSessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.shared.0.lock().of(server_name).group = Some(group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.shared.0.lock().known.get(&server_name.to_owned())?.group
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        if let Some(&until) = self.until.get() {
            self.shared.0.lock().of(server_name).tls12 = Some((until, value));
        }
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let servers = self.shared.0.lock();
        let (until, session) = servers.known.get(&server_name.to_owned())?.tls12.as_ref()?;
        holds(*until).then(|| self.offer((*until, session.clone())))
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        if let Some(server) = self.shared.0.lock().known.get_mut(server_name) {
            server.tls12 = None;
        }
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        let Some(&until) = self.until.get() else { return };
        let mut servers = self.shared.0.lock();
        let tickets = &mut servers.of(server_name).tls13;
        if tickets.len() == TICKETS {
            tickets.pop_front();
        }
        tickets.push_back((until, value));
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut servers = self.shared.0.lock();
        let tickets = &mut servers.known.get_mut(server_name)?.tls13;
        tickets.retain(|(until, _)| holds(*until));
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

    /// Clients may offer a ticket for longer than its lifetime.
    #[test]
    fn a_session_is_given_back_only_while_its_judgement_holds() {
        let sessions = Sessions::new(&Arc::default()).unwrap();
        let now = UnixTime::now().as_secs();
        for (until, holds) in [(now - 1, false), (now + 1000, true), (NEVER_EXPIRES, true)] {
            let mut judged = until;
            let (ticket, lifetime) = with_validity(&mut judged, || {
                assert!(sessions.store.put(b"id".to_vec(), b"session".to_vec()));
                (sessions.ticketer.encrypt(b"session").unwrap(), sessions.ticketer.lifetime())
            });
            assert_eq!(judged, until);
            assert!(u64::from(lifetime) <= until.saturating_sub(now));
            let expected = holds.then(|| b"session".to_vec());
            for take in [
                &(|| sessions.ticketer.decrypt(&ticket)) as &dyn Fn() -> _,
                &|| sessions.store.get(b"id"),
                &|| sessions.store.take(b"id"),
            ] {
                let mut judged = NEVER_EXPIRES;
                assert_eq!(with_validity(&mut judged, take), expected, "{until}");
                // What is given out next ends no later.
                assert_eq!(judged, if holds { until } else { NEVER_EXPIRES });
            }
        }
        assert!(sessions.ticketer.lifetime() > 0);
    }

    #[test]
    fn a_judgement_of_a_chain_ends_with_its_first_certificate_or_another_that_was_valid() {
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

    /// Else a server that answers late gets the session renewed without end.
    #[test]
    fn a_session_that_is_resumed_keeps_its_end() {
        for (judges, is_resumed, expected) in
            [(true, true, 7), (true, false, NEVER_EXPIRES), (false, true, NEVER_EXPIRES)]
        {
            let sessions = ConnectionSessions::new(Arc::default(), judges);
            sessions.offer((7, ()));
            sessions.learn(Some(&[]), is_resumed);
            assert_eq!(sessions.until.get(), Some(&expected));
        }
    }
}
