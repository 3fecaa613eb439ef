//! Explores the interleavings of the selector's workers, its monitor and its clients.

mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use sock::{Socket, create_connection};

    use super::super::Shared;
    use crate::accept::acceptor::Acceptor;
    use crate::os::interleave::checker::{Actor, every_order_within, tick};
    use crate::os::interleave::{self, yield_point};
    use crate::request::stream_handler::handler_fn;
    use crate::{SelectorMixIn, SelectorTCPServer};

    /// How many checks the monitor may need until every worker that can have work has some.
    const LOOKS: usize = 6;

    struct World {
        _server: SelectorTCPServer,
        _clients: Vec<Socket>,
        ended: Arc<AtomicUsize>,
    }

    /// Two workers, whose handlers return when both clients are served. One client connects before the
    /// workers start, the other one later.
    fn begin() -> (Vec<Actor>, World) {
        let (entered, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (enters, ends) = (Arc::clone(&entered), Arc::clone(&ended));
        let handler = handler_fn(move |cx| {
            enters.fetch_add(1, Ordering::SeqCst);
            interleave::block_until(&|| enters.load(Ordering::SeqCst) == 2);
            ends.fetch_add(1, Ordering::SeqCst);
            cx.request.sendall(b"served")
        });
        let server = SelectorTCPServer::builder(handler)
            .wrap_timeout(None)
            .first_byte_timeout(None)
            .idle_timeout(None)
            .request_timeout(None)
            .bind(("127.0.0.1", 0))
            .unwrap();
        let address = ("127.0.0.1", server.server_address().port().unwrap());
        let connect = move || {
            let client = create_connection(address).unwrap();
            client.sendall(b"a request").unwrap();
            client
        };
        let clients = vec![connect()];
        let shared =
            Arc::new(Shared::new(&SelectorMixIn::new().workers(2).max_workers(2), &server.core).unwrap());
        shared.work.lock().count = 2;
        shared.open(Acceptor::new(&server.core, &server.sockets, server.settings)).unwrap();
        let worker = || {
            let shared = Arc::clone(&shared);
            Box::new(move || shared.run_worker()) as Actor
        };
        let client = move || {
            let _client = connect();
            yield_point();
        };
        let (watched, all_ended) = (Arc::clone(&shared), Arc::clone(&ended));
        let watch = move || {
            let mut seen = 0;
            for _ in 0..LOOKS {
                tick();
                if all_ended.load(Ordering::SeqCst) == 2 {
                    break;
                }
                watched.check_progress(watched.work.lock(), &mut seen);
            }
            let served = all_ended.load(Ordering::SeqCst);
            watched.close();
            watched.stop();
            assert_eq!(served, 2, "a client is left while a worker has nothing to do");
        };
        let actors: Vec<Actor> = vec![worker(), worker(), Box::new(client), Box::new(watch)];
        (actors, World { _server: server, _clients: clients, ended })
    }

    #[test]
    fn no_client_waits_while_a_worker_is_idle() {
        let check = |world: World| assert_eq!(world.ended.load(Ordering::SeqCst), 2);
        let orders = every_order_within(1, begin, check);

        assert!(orders > 100, "{orders}");
    }
}
