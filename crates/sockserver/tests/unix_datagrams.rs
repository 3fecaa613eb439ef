//! The promise: a datagram client that cannot be answered is no error of the server.
#![cfg(unix)]

mod support;

use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use sock::{AF_UNIX, Address, SOCK_DGRAM, Socket};
use sockserver::kind::Unix;
use sockserver::{
    DatagramContext, DatagramServer, MixIn, RequestError, Sequential, ServerHooks, ThreadingMixIn,
    UnixDatagramServer, datagram_handler_fn,
};

#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<bool>>>);

impl ServerHooks for Reports {
    fn handle_error(&self, error: &RequestError, _client_address: &Address) {
        self.0.lock().push(error.is_disconnect());
    }
}

/// Sends `data` from an unbound socket, and returns what `handle_error` was called with.
fn reports_of<M: MixIn + Default>(
    handle: impl Fn(&mut DatagramContext<'_>) -> std::io::Result<()> + Send + Sync + 'static,
) -> Vec<bool> {
    let folder = tempfile::tempdir().unwrap();
    let (path, reports) = (folder.path().join("socket"), Reports::default());
    let server = DatagramServer::<Unix, M>::builder(datagram_handler_fn(handle)).hooks(reports.clone());
    let server = server.bind(&path).unwrap();
    let client = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    client.sendto(b"<14>a record", server.server_address()).unwrap();
    server.handle_request().unwrap();
    let handle = server.handle();
    server.server_close().unwrap();
    assert!(handle.stats().is_consistent());
    let Reports(reports) = reports;
    Vec::clone(&reports.lock())
}

#[test]
fn an_answer_to_a_client_without_an_address_is_skipped() {
    let answers = |cx: &mut DatagramContext<'_>| cx.wfile.write_all(b"thanks");
    assert_eq!(reports_of::<Sequential>(answers), []);
    assert_eq!(reports_of::<ThreadingMixIn>(answers), []);
}

#[test]
fn a_handler_that_sends_to_a_client_without_an_address_fails_as_if_it_had_disconnected() {
    let sends = |cx: &mut DatagramContext<'_>| cx.sendto(b"thanks", cx.client_address).map(drop);
    assert_eq!(reports_of::<Sequential>(sends), [true]);
    let sends = |cx: &mut DatagramContext<'_>| cx.socket.sendto(b"thanks", cx.client_address).map(drop);
    assert_eq!(reports_of::<ThreadingMixIn>(sends), [true]);
}

#[test]
fn a_client_that_is_gone_before_its_answer_has_disconnected() {
    let folder = tempfile::tempdir().unwrap();
    let (path, client_path) = (folder.path().join("socket"), folder.path().join("client"));
    for removes in [false, true] {
        for batch in [1, 4] {
            let reports = Reports::default();
            let answers = datagram_handler_fn(|cx| cx.wfile.write_all(b"thanks"));
            let server = UnixDatagramServer::builder(answers).max_batch(batch).hooks(reports.clone());
            let server = server.bind(&path).unwrap();
            let client = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
            client.bind(&client_path).unwrap();
            client.sendto(b"record", server.server_address()).unwrap();
            drop(client);
            if removes {
                std::fs::remove_file(&client_path).unwrap();
            }
            std::thread::scope(|scope| {
                let _stop = support::StopOnDrop(server.handle());
                scope.spawn(|| server.serve_forever().unwrap());
                support::wait_until("the answer fails", || !reports.0.lock().is_empty());
            });
            assert_eq!(*reports.0.lock(), [true], "removed: {removes}, batch of {batch}");
            let _ = std::fs::remove_file(&client_path);
        }
    }
}
