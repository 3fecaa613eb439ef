//! The state that all requests of a server share.

use std::io;
use std::sync::Arc;

use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::registry::Registry;
use crate::limits::request_quota::RequestQuota;
use crate::request::datagram_handler::ErasedDatagramHandler;
use crate::request::hooks::{ServerHooks, ServiceActions, WrapRequest, call_with_states};
use crate::request::proxy_protocol::ProxyProtocol;
use crate::request::stream_handler::ErasedHandler;

/// The state that all requests of a server share.
pub(crate) struct Core {
    pub(crate) service: Arc<HandlerFactory>,
    pub(crate) hooks: Arc<dyn ServerHooks>,
    /// Whether `hooks` are the user's. The steps of [`Defaults`] are skipped where they do nothing.
    ///
    /// [`Defaults`]: crate::request::hooks::Defaults
    pub(crate) has_hooks: bool,
    pub(crate) proxy_protocol: Option<Arc<ProxyProtocol>>,
    pub(crate) wrap_request: Option<Arc<WrapRequest>>,
    pub(crate) service_actions: Option<Arc<ServiceActions>>,
    pub(crate) handle: ServerHandle,
    /// Whether accepted sockets have the listener's `SO_SNDTIMEO`, which is `write_timeout`.
    pub(crate) inherits_write_timeout: bool,
    /// How many requests this process serves before it is replaced.
    pub(crate) quota: RequestQuota,
}

impl Core {
    /// Creates the state of a worker process. It has its own handle and registry, because those
    /// of the parent are not shared between processes.
    pub(crate) fn for_worker(parent: &Core, max_requests: Option<u64>) -> io::Result<Core> {
        let handle = parent.handle.for_worker()?;
        if parent.has_hooks {
            call_with_states(&handle, &parent.hooks);
        }
        Ok(Core {
            service: Arc::clone(&parent.service),
            hooks: Arc::clone(&parent.hooks),
            has_hooks: parent.has_hooks,
            proxy_protocol: parent.proxy_protocol.clone(),
            wrap_request: parent.wrap_request.clone(),
            // They are called in the loop of the parent.
            service_actions: None,
            handle,
            inherits_write_timeout: parent.inherits_write_timeout,
            quota: RequestQuota::new(max_requests),
        })
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        self.handle.registry()
    }
}

/// The server's handler factory.
pub(crate) enum HandlerFactory {
    Stream(Box<dyn Fn() -> Box<dyn ErasedHandler> + Send + Sync>),
    Datagram(Box<MakeDatagramHandler>),
}

pub(crate) type MakeDatagramHandler = dyn Fn() -> Box<dyn ErasedDatagramHandler> + Send + Sync;
