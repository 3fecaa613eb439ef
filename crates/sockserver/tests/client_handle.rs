//! The promise: a handle sends on a connection from outside its handler, through what `wrap_request`
//! returned, and does not keep the connection open.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use sock::{SHUT_RDWR, Shutdown, Socket, StreamSocket};
use sockserver::{ClientHandle, ThreadingTCPServer, handler_fn};

/// The limit of every wait.
const LIMIT: Duration = Duration::from_secs(20);

/// A stream that sends in upper case, as TLS sends encrypted.
struct Loud(Socket);

impl StreamSocket for Loud {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv_into(buffer)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.0.send(&data.to_ascii_uppercase())
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    fn socket(&self) -> &Socket {
        &self.0
    }
}

/// Serves one client, and calls `act` with its handle while the handler reads.
fn with_handle(wrapped: bool, act: impl FnOnce(ClientHandle, Socket)) {
    let (sender, handles) = mpsc::channel::<ClientHandle>();
    let serve = move |cx: &mut sockserver::StreamContext<'_>, sender: &Sender<ClientHandle>| {
        sender.send(cx.client_handle()?).map_err(io::Error::other)?;
        cx.rfile.readline(100).map(drop)
    };
    let mut builder = ThreadingTCPServer::builder(handler_fn(move |cx| serve(cx, &sender)));
    if wrapped {
        builder = builder.wrap_request(|socket, _| Ok(Loud(socket)));
    }
    let server = builder.bind(("127.0.0.1", 0)).unwrap();
    let (handle, port) = (server.handle(), server.server_address().port().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| server.serve_forever().unwrap());
        let client = sock::create_connection(("127.0.0.1", port)).unwrap();
        client.settimeout(LIMIT).unwrap();
        let of_client = handles.recv_timeout(LIMIT).unwrap();
        assert_eq!(*of_client.client_address(), client.getsockname().unwrap());
        act(of_client, client);
        handle.shutdown().unwrap();
    });
}

#[test]
fn a_handle_sends_through_the_stream_of_its_connection() {
    for (wrapped, expected) in [(false, b"news"), (true, b"NEWS")] {
        with_handle(wrapped, |handle, client| {
            let other = handle.clone();
            assert_eq!(handle, other);
            thread::spawn(move || other.sendall(b"news")).join().unwrap().unwrap();
            assert_eq!(client.recv(100).unwrap(), expected);
            // It ends the handler, which reads.
            handle.shutdown(SHUT_RDWR).unwrap();
            assert_eq!(client.recv(100).unwrap(), b"");
        });
    }
}

#[test]
fn a_handle_does_not_keep_the_connection_open() {
    for wrapped in [false, true] {
        with_handle(wrapped, |handle, client| {
            client.sendall(b"done\n").unwrap();
            assert_eq!(client.recv(100).unwrap(), b"", "the handler has returned");
            let begin = Instant::now();
            let kind = loop {
                if let Err(error) = handle.sendall(b"late") {
                    break error.kind();
                }
                assert!(begin.elapsed() < LIMIT, "wrapped: {wrapped}: it sends on a closed connection");
                thread::sleep(Duration::from_millis(1));
            };
            let ended =
                [io::ErrorKind::NotConnected, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
            assert!(ended.contains(&kind), "wrapped: {wrapped}: {kind:?}");
        });
    }
}
