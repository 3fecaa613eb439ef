//! What was added to a connection after accept(2): the client's address from a PROXY protocol
//! header, and the stream that `wrap_request` returned.

use once_cell::race::OnceBox;
use sock::{Address, Socket};

use super::Connection;
use crate::connection::proxy_header::ProxyHeader;
use crate::connection::transport::Transport;

/// What a PROXY protocol header or `wrap_request` made of an accepted connection.
pub(super) struct Wrapped {
    /// `None` for a PROXY protocol header, and in the parent of a forked child, which has the
    /// transport.
    transport: Option<Transport>,
    client_address: Option<Address>,
    /// Whether this is what a PROXY protocol header made. `wrap_request` comes `next` then.
    is_proxied: bool,
    /// `None` in the parent of a forked child.
    header: Option<Box<ProxyHeader>>,
    next: OnceBox<Wrapped>,
}

impl Wrapped {
    pub(super) fn transport(&self) -> Option<&Transport> {
        self.transport.as_ref().or_else(|| self.next.get()?.transport.as_ref())
    }

    /// Returns the address that was named last.
    pub(super) fn client_address(&self) -> Option<&Address> {
        let next = self.next.get().and_then(|next| next.client_address.as_ref());
        next.or(self.client_address.as_ref())
    }
}

impl Connection {
    /// Sets what `wrap_request` made of the connection. Only the first call has an effect.
    pub(crate) fn set_wrapped(&self, transport: Option<Transport>, client_address: Option<Address>) {
        let wrapped = Box::new(Wrapped {
            transport,
            client_address,
            is_proxied: false,
            header: None,
            next: OnceBox::new(),
        });
        let _ = match self.wrapped.get().filter(|proxied| proxied.is_proxied) {
            Some(proxied) => proxied.next.set(wrapped),
            None => self.wrapped.set(wrapped),
        };
    }

    /// Sets the client's address that the PROXY protocol header named, if it named one, and the
    /// header.
    pub(crate) fn set_proxied(&self, client_address: Option<Address>, header: Option<Box<ProxyHeader>>) {
        let proxied =
            Wrapped { transport: None, client_address, is_proxied: true, header, next: OnceBox::new() };
        let _ = self.wrapped.set(Box::new(proxied));
    }

    /// Returns whether the PROXY protocol header was received.
    pub(crate) fn is_proxied(&self) -> bool {
        self.wrapped.get().is_some_and(|wrapped| wrapped.is_proxied)
    }

    /// Returns the PROXY protocol header, if there is one.
    #[cfg(feature = "proxy-protocol")]
    pub(crate) fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.wrapped.get()?.header.as_deref()
    }

    /// Takes the accepted socket, which `wrap_request` consumes.
    pub(crate) fn take_socket(&mut self) -> Option<Socket> {
        match self.transport.take() {
            Some(Transport::Socket(socket)) => Some(socket),
            other => {
                self.transport = other;
                None
            }
        }
    }
}
