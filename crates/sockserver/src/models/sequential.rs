//! Requests in the accept loop itself.

use std::io;

use crate::accept::mixin::{AcceptLoop, MixIn};
use crate::models::inline_datagram;
use crate::request::core::HandlerFactory;
use crate::request::job::{Job, Rejected};

/// Serves each request in the loop: the next client waits until this one is served.
///
/// Python: `BaseServer.process_request`.
///
/// # Examples
///
/// ```
/// use sockserver::{Sequential, Server, handler_fn, kind};
///
/// let hello = handler_fn(|cx| cx.request.sendall(b"hello"));
/// // The type is also called `TCPServer`.
/// let server = Server::<kind::Stream<kind::Inet>, Sequential>::new(("127.0.0.1", 0), hello)?;
/// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// server.handle_request()?;
/// assert_eq!(client.recv(100)?, b"hello");
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequential;

impl MixIn for Sequential {
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        job.run();
        Ok(())
    }

    fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        if let HandlerFactory::Datagram(make) = &*accept_loop.core().service {
            return inline_datagram::serve(accept_loop, &**make);
        }
        while accept_loop.run_once(&[], None)? {}
        Ok(())
    }

    fn serves_in_loop(&self) -> bool {
        true
    }
}
