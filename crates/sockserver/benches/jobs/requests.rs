//! Measures requests with each mixin, and with a hand-written server.

use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use sockserver::kind::Family;
use sockserver::{
    DatagramContext, DatagramRequestHandler, ForkingTCPServer, MixIn, StreamContext, StreamRequestHandler,
    StreamServer, TCPServer, ThreadingTCPServer, UDPServer,
};

const MESSAGE: [u8; 64] = [b'x'; 64];

pub(crate) struct Echo;

impl StreamRequestHandler for Echo {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let message = cx.rfile.fill_buf()?;
        cx.wfile.write_all(message)?;
        let length = message.len();
        cx.rfile.consume(length);
        Ok(())
    }
}

struct EchoDatagram;

impl DatagramRequestHandler for EchoDatagram {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        cx.wfile.write_all(cx.packet)
    }
}

pub(crate) fn connections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a connection of one message");
    by_hand(&mut group);
    // Forking is refused once threads have been started.
    served(&mut group, "ForkingMixIn", ForkingTCPServer::new(("127.0.0.1", 0), || Echo));
    served(&mut group, "Sequential", TCPServer::new(("127.0.0.1", 0), || Echo));
    served(&mut group, "ThreadingMixIn", ThreadingTCPServer::new(("127.0.0.1", 0), || Echo));
    group.finish();
}

fn by_hand(group: &mut BenchmarkGroup<'_, WallTime>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    group.bench_function("by hand", |bencher| {
        bencher.iter(|| {
            let client = begin(address);
            let (mut connection, _) = listener.accept().expect("a client waits");
            let mut buffer = [0; 8192];
            let received = connection.read(&mut buffer).expect("it has sent");
            connection.write_all(&buffer[..received]).expect("it listens");
            drop(connection);
            end(client);
        });
    });
}

fn served<F: Family, M: MixIn>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    server: io::Result<StreamServer<F, M>>,
) {
    let server = server.expect("a port is free");
    let address = server.server_address().to_socket_addr().expect("it listens on an IP address");
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let client = begin(address);
            server.handle_request().expect("a client waits");
            end(client);
        });
    });
    server.server_close().expect("all are served");
}

pub(crate) fn begin(server: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(server).expect("the server listens");
    client.write_all(&MESSAGE).expect("there is room");
    client.shutdown(Shutdown::Write).expect("it is connected");
    client
}

pub(crate) fn end(mut client: TcpStream) {
    let mut answer = Vec::with_capacity(256);
    client.read_to_end(&mut answer).expect("the server answers and closes");
    assert_eq!(answer, MESSAGE);
}

pub(crate) fn datagrams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a datagram");
    let client = UdpSocket::bind(("127.0.0.1", 0)).expect("a port is free");
    let mut answer = [0; 256];

    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port is free");
    let address = socket.local_addr().expect("it is bound");
    group.bench_function("by hand", |bencher| {
        bencher.iter(|| {
            client.send_to(&MESSAGE, address).expect("there is room");
            let mut buffer = [0; 8192];
            let (received, from) = socket.recv_from(&mut buffer).expect("a datagram waits");
            socket.send_to(&buffer[..received], from).expect("there is room");
            assert_eq!(client.recv(&mut answer).expect("it has been answered"), MESSAGE.len());
        });
    });

    let server = UDPServer::new(("127.0.0.1", 0), || EchoDatagram).expect("a port is free");
    let address = server.server_address().to_socket_addr().expect("it has an IP address");
    group.bench_function("Sequential", |bencher| {
        bencher.iter(|| {
            client.send_to(&MESSAGE, address).expect("there is room");
            server.handle_request().expect("a datagram waits");
            assert_eq!(client.recv(&mut answer).expect("it has been answered"), MESSAGE.len());
        });
    });
    group.finish();
}
