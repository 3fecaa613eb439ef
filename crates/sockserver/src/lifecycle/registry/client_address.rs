//! The client address that `wrap_request` names.

use sock::Address;

use super::{Entry, PerIpLimitReached, Registry};
use crate::connection::transport::Transport;

impl Entry {
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
        let most = registry.limits().max_connections_per_ip;
        let mut table = registry.table.lock();
        table.forget_ip(self.client_address(), most);
        self.connection.set_wrapped(transport, client_address);
        let allowed = table.count_ip(self.client_address(), most);
        drop(table);
        if let Some(slot) = registry.own_slot.get() {
            // Cleared first: the slot's place in the order of arrival belongs to the old address.
            slot.clear_client();
            slot.set_client(self.client_address());
            if most.is_some_and(|most| slot.exceeds_per_ip_limit(most)) {
                return Err(PerIpLimitReached);
            }
        }
        allowed
    }
}
