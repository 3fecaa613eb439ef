//! Explores the interleavings of the workers of a pool and its stop.

mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use sock::{SHUT_RDWR, Socket, create_connection, socketpair};

    use super::super::AcceptWorker;
    use crate::accept::acceptor::{AcceptGate, Acceptor};
    use crate::api::classes::ThreadPoolTCPServer;
    use crate::os::interleave::checker::{Actor, every_order_within};
    use crate::os::interleave::yield_point;
    use crate::request::stream_handler::handler_fn;

    struct World {
        server: ThreadPoolTCPServer,
        _clients: Vec<Socket>,
        /// The number of accepted connections after the stop.
        at_the_stop: Arc<AtomicU64>,
    }

    /// Two workers, two clients and a stop. The stop flag of the server stays unset, as after the end of
    /// a loop.
    fn begin() -> (Vec<Actor>, World) {
        let server = ThreadPoolTCPServer::builder(handler_fn(|_| Ok(())))
            .wrap_timeout(None)
            .first_byte_timeout(None)
            .idle_timeout(None)
            .request_timeout(None)
            .bind(("127.0.0.1", 0))
            .unwrap();
        let address = ("127.0.0.1", server.server_address().port().unwrap());
        let clients: Vec<_> = (0..2).map(|_| create_connection(address).unwrap()).collect();
        clients.iter().for_each(|client| drop(client.shutdown(sock::SHUT_WR)));
        let (ours, theirs) = socketpair().unwrap();
        let theirs = Arc::new(theirs);
        let gate = || AcceptGate::new(Acceptor::new(&server.core, &server.sockets, server.settings));
        let gates = [gate(), gate()];
        let worker = |gate: &AcceptGate| {
            let (gate, stop) = (gate.clone(), Arc::clone(&theirs));
            Box::new(move || {
                let worker = AcceptWorker::new(gate, stop).unwrap();
                while let Some(job) = worker.next(None).unwrap() {
                    worker.serve(job);
                }
            }) as Actor
        };
        let mut actors: Vec<Actor> = gates.iter().map(worker).collect();
        let (handle, at_the_stop) = (server.handle(), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&at_the_stop);
        actors.push(Box::new(move || {
            ours.shutdown(SHUT_RDWR).unwrap();
            gates.iter().for_each(|gate| drop(gate.close()));
            yield_point();
            count.store(handle.stats().accepted, Ordering::SeqCst);
        }));
        (actors, World { server, _clients: clients, at_the_stop })
    }

    #[test]
    fn no_worker_accepts_after_the_stop() {
        let orders = every_order_within(1, begin, |world| {
            let stats = world.server.stats();
            assert_eq!(stats.accepted, world.at_the_stop.load(Ordering::SeqCst));
            assert_eq!(
                (stats.in_flight, stats.finished),
                (0, stats.accepted),
                "what was accepted is served"
            );
        });

        assert!(orders > 100, "{orders}");
    }
}
