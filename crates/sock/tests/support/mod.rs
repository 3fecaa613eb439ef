//! What several tests of this crate need.

use std::time::Duration;

use sock::{AF_INET, Address, SOCK_STREAM, Socket};

pub(crate) fn tcp() -> Socket {
    Socket::new(AF_INET, SOCK_STREAM, 0).unwrap()
}

/// Returns the address of a listener whose accept queue is full. A connect hangs, as one to a host
/// that does not answer, while the sockets exist.
pub(crate) fn full_listener() -> (Vec<Socket>, Address) {
    let listener = tcp();
    listener.bind(("127.0.0.1", 0)).unwrap();
    listener.listen(0).unwrap();
    let address = listener.getsockname().unwrap();
    let mut sockets = vec![listener];
    loop {
        assert!(sockets.len() < 100, "an accept queue of length 0 takes {} connections", sockets.len());
        let client = tcp();
        client.settimeout(Duration::from_millis(100)).unwrap();
        let connected = client.connect(&address).is_ok();
        sockets.push(client);
        if !connected {
            return (sockets, address);
        }
    }
}
