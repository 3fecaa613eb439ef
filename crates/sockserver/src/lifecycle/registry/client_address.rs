//! The client address that the PROXY protocol or `wrap_request` names.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use sock::{Address, Socket};

use super::{Entry, PerIpLimitReached, Published, Registry, Table};
use crate::connection::Connection;
use crate::connection::proxy_header::ProxyHeader;
use crate::connection::transport::Transport;

impl Registry {
    /// Forgets a connection that counts for its client address.
    #[inline(always)]
    pub(super) fn forget_ip(&self, table: &mut Table, connection: &Connection) {
        let most = self.limits().max_connections_per_ip;
        // Until its header was received, it counts for no address.
        if most.is_some() && (!self.limits().expects_proxy_header() || connection.is_proxied()) {
            table.forget_ip(connection.client_address(), most);
        }
    }
}

impl Registry {
    /// Returns what the processes share, if this is a worker process with several connections.
    pub(super) fn serves_many(&self) -> Option<&Published> {
        self.published.get().filter(|published| published.serves_many)
    }
}

impl Entry {
    /// Counts the connection for its client address in all worker processes, if they have several
    /// connections. It waits for a lock that they share, so it is called without the gate's lock.
    ///
    /// # Errors
    ///
    /// Returns an error if that address has too many connections already.
    pub(crate) fn count_in_all_workers(&self, registry: &Registry) -> Result<(), PerIpLimitReached> {
        let most = registry.limits().max_connections_per_ip;
        let (Some(shared), Some(most)) = (registry.serves_many(), most) else { return Ok(()) };
        let Some(ip) = self.client_address().ip() else { return Ok(()) };
        if !shared.slot.admit_address(&shared.board, ip, most) {
            return Err(PerIpLimitReached);
        }
        self.is_counted.store(true, Ordering::Relaxed);
        Ok(())
    }

    #[inline(always)]
    pub(super) fn forget_in_all_workers(&self, registry: &Registry) {
        if let Some(shared) = registry.serves_many() {
            self.forget_in(shared);
        }
    }

    fn forget_in(&self, shared: &Published) {
        let ip = self.client_address().ip().filter(|_| self.is_counted.swap(false, Ordering::Relaxed));
        if let Some(ip) = ip {
            shared.slot.forget_address(&shared.board, ip);
        }
    }

    /// Sets what `wrap_request` made of the connection. If it named a client address, the
    /// connection counts for that address from now on.
    ///
    /// # Errors
    ///
    /// Returns an error if that address has too many connections already.
    pub(crate) fn set_wrapped(
        &self,
        registry: &Registry,
        transport: Option<Transport>,
        client_address: Option<Address>,
    ) -> Result<(), PerIpLimitReached> {
        if client_address.is_none() {
            self.connection.set_wrapped(transport, None);
            return Ok(());
        }
        let table = registry.table.lock();
        self.replace_address(registry, table, || self.connection.set_wrapped(transport, client_address))
    }

    /// Sets the client address that the PROXY protocol header named, if it named one, and the
    /// header. The connection counts for its client address from now on.
    ///
    /// # Errors
    ///
    /// Returns an error if that address has too many connections already.
    pub(crate) fn set_proxied(
        &self,
        registry: &Registry,
        client_address: Option<Address>,
        header: Option<Box<ProxyHeader>>,
    ) -> Result<(), PerIpLimitReached> {
        let table = registry.table.lock();
        self.replace_address(registry, table, || self.connection.set_proxied(client_address, header))
    }

    fn replace_address(
        &self,
        registry: &Registry,
        mut table: MutexGuard<'_, Table>,
        replace: impl FnOnce(),
    ) -> Result<(), PerIpLimitReached> {
        let most = registry.limits().max_connections_per_ip;
        registry.forget_ip(&mut table, &self.connection);
        self.forget_in_all_workers(registry);
        replace();
        let allowed = table.count_ip(self.client_address(), most);
        drop(table);
        if registry.serves_many().is_some() {
            return allowed.and_then(|()| self.count_in_all_workers(registry));
        }
        if let Some(slot) = registry.worker_slot() {
            // Cleared first: the slot's place in the order of arrival belongs to the old address.
            slot.clear_client();
            slot.set_client(self.client_address());
            if most.is_some_and(|most| slot.exceeds_per_ip_limit(most)) {
                return Err(PerIpLimitReached);
            }
        }
        allowed
    }

    /// Takes the accepted socket, which `wrap_request` consumes.
    pub(crate) fn take_socket(&mut self, registry: &Registry) -> Option<Socket> {
        let mut table = registry.table.lock();
        // No other thread may see the connection while it is changed.
        table.entries[self.slot as usize] = None;
        registry.wait_for_release(&mut table, self.slot);
        let socket = Arc::get_mut(&mut self.connection).and_then(Connection::take_socket);
        table.entries[self.slot as usize] = Some(Arc::clone(&self.connection));
        socket
    }
}
