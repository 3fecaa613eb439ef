//! HTTPS requests on kept connections: a selector server with TLS, and hyper with tokio-rustls on
//! one thread.
//!
//! `https compare [ROUNDS [REQUESTS [CLIENTS]]]` starts both, runs the same requests against them in
//! turn, and prints the medians of the CPU time of the server process per request, and of the ratio
//! of a round. Both use `ring` through the same version of rustls, the same certificate, and send
//! the same response. Linux only.
//!
//! `https serve FOLDER PORT` and `https rounds FOLDER PORT CLIENTS REQUESTS` are for `scripts/counts`:
//! the server alone, and requests in lockstep.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sockserver::{SelectorTCPServer, StreamContext, StreamRequestHandler};

#[cfg(feature = "compare")]
mod compare;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const BODY: &str = "Hello, World!";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\r\nHello, World!";
const QUESTION: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: https-bench\r\nAccept: */*\r\n\r\n";

/// Serves one request per call, as an ordinary handler does.
struct Page;

impl StreamRequestHandler for Page {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        loop {
            let input = cx.rfile.fill_buf()?;
            if input.is_empty() {
                cx.close_connection = true;
                return Ok(());
            }
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(input) {
                Ok(httparse::Status::Complete(length)) => {
                    cx.rfile.consume(length);
                    cx.close_connection = false;
                    return cx.wfile.write_all(ANSWER);
                }
                _ => return Err(io::Error::from(io::ErrorKind::InvalidData)),
            }
        }
    }
}

/// Creates the certificate of the server and its key.
fn create_certificate(folder: &Path) -> Result {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])?.self_signed(&key)?;
    fs::write(folder.join("key.pem"), key.serialize_pem())?;
    Ok(fs::write(folder.join("cert.pem"), certificate.pem())?)
}

fn client_config(folder: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem"))?)?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn ours(folder: &Path, port: u16, workers: usize) -> Result {
    let context = sockssl::create_default_context(sockssl::Purpose::CLIENT_AUTH)?;
    context.load_cert_chain(folder.join("cert.pem"), folder.join("key.pem"))?;
    let server = SelectorTCPServer::builder(|| Page)
        .workers(workers)
        .wrap_request(move |request, _| {
            request.setsockopt(sock::IPPROTO_TCP, sock::TCP_NODELAY, true)?;
            context.wrap_socket_server(request)
        })
        .bind(("127.0.0.1", port))?;
    println!("{}", server.server_address().port().unwrap());
    Ok(server.serve_forever()?)
}

type Client = StreamOwned<ClientConnection, TcpStream>;

fn connect(config: &Arc<ClientConfig>, port: u16) -> Result<Client> {
    wrap(config, TcpStream::connect(("127.0.0.1", port))?)
}

fn wrap(config: &Arc<ClientConfig>, stream: TcpStream) -> Result<Client> {
    let connection = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
    stream.set_nodelay(true)?;
    Ok(StreamOwned::new(connection, stream))
}

fn request(client: &mut Client) -> Result {
    client.write_all(QUESTION)?;
    read_answer(client)
}

fn read_answer(client: &mut Client) -> Result {
    let (mut answer, mut length) = ([0; 1024], 0);
    while !answer[..length].ends_with(BODY.as_bytes()) {
        length += client.read(&mut answer[length..])?;
    }
    assert_eq!(length, ANSWER.len(), "{:?}", String::from_utf8_lossy(&answer[..length]));
    Ok(())
}

/// Connects as soon as the server listens. It sees no other connection.
fn first_connection(port: u16) -> Result<TcpStream> {
    let begin = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Err(_) if begin.elapsed() < Duration::from_secs(60) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return Ok(result?),
        }
    }
}

/// Makes requests in lockstep: all of a round are sent before the first answer is read. So a server on
/// the same CPU that does not preempt this program finds the whole round.
fn rounds(folder: &Path, port: u16, clients: usize, requests: usize) -> Result {
    let first = first_connection(port)?;
    // The server writes its certificate before it listens.
    let config = client_config(folder)?;
    let (mut connections, mut first) = (Vec::new(), Some(first));
    for _ in 0..clients {
        let mut client = match first.take() {
            Some(stream) => wrap(&config, stream)?,
            None => connect(&config, port)?,
        };
        client.sock.set_read_timeout(Some(Duration::from_secs(30)))?;
        // The handshake is complete, and the tickets of the server have been received.
        request(&mut client)?;
        connections.push(client);
    }
    for _ in 0..requests / clients.max(1) {
        for client in &mut connections {
            client.write_all(QUESTION)?;
        }
        // The last request is answered last, so one wait covers the whole round.
        for client in connections.iter_mut().rev() {
            read_answer(client)?;
        }
    }
    Ok(())
}

fn run(words: &[&str]) -> Result {
    match words {
        ["ours", workers, folder] => ours(Path::new(folder), 0, workers.parse()?),
        ["serve", folder, port] => {
            create_certificate(Path::new(folder))?;
            ours(Path::new(folder), port.parse()?, 1)
        }
        ["rounds", folder, port, clients, requests] => {
            rounds(Path::new(folder), port.parse()?, clients.parse()?, requests.parse()?)
        }
        #[cfg(feature = "compare")]
        ["hyper", folder] => compare::hyper(Path::new(folder)),
        #[cfg(feature = "compare")]
        ["compare", numbers @ ..] => {
            let number =
                |index: usize, default: usize| numbers.get(index).map_or(Ok(default), |word| word.parse());
            let folder = tempfile::tempdir()?;
            compare::compare(folder.path(), number(0, 31)?, number(1, 3000)?, number(2, 16)?)
        }
        _ => Err("usage: https compare [ROUNDS [REQUESTS [CLIENTS]]]".into()),
    }
}

fn main() -> Result {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = env::args().skip(1).collect();
    run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}
