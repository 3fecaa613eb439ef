//! The state that all requests of a server share.

use std::io;
use std::sync::Arc;

use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::registry::Registry;
use crate::request::datagram_handler::ErasedDatagramHandler;
use crate::request::hooks::{ServerHooks, ServiceActions, WrapRequest};
use crate::request::stream_handler::ErasedHandler;

/// The state that all requests of a server share.
pub(crate) struct Core {
    pub(crate) service: Arc<HandlerFactory>,
    pub(crate) hooks: Arc<dyn ServerHooks>,
    /// Whether `hooks` are the user's. The steps of [`Defaults`] are skipped where they do nothing.
    ///
    /// [`Defaults`]: crate::request::hooks::Defaults
    pub(crate) has_hooks: bool,
    pub(crate) wrap_request: Option<Arc<WrapRequest>>,
    pub(crate) service_actions: Option<Arc<ServiceActions>>,
    pub(crate) handle: ServerHandle,
    /// Whether accepted sockets have the listener's `SO_SNDTIMEO`, which is `write_timeout`.
    pub(crate) inherits_write_timeout: bool,
}

impl Core {
    /// Creates the state of a worker process. It has its own handle and registry, because those
    /// of the parent are not shared between processes.
    pub(crate) fn for_worker(parent: &Core) -> io::Result<Core> {
        Ok(Core {
            service: Arc::clone(&parent.service),
            hooks: Arc::clone(&parent.hooks),
            has_hooks: parent.has_hooks,
            wrap_request: parent.wrap_request.clone(),
            service_actions: parent.service_actions.clone(),
            handle: ServerHandle::for_worker(parent.registry().limits().clone())?,
            inherits_write_timeout: parent.inherits_write_timeout,
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
