//! HTTPS requests on kept connections: a selector server with TLS, and hyper with tokio-rustls on
//! one thread.
//!
//! `https compare [ROUNDS [REQUESTS [CLIENTS]]]` starts both, runs the same requests against them in
//! turn, and prints the medians of the CPU time of the server process per request, and of the ratio
//! of a round. Both use `ring` through the same version of rustls, the same certificate, and send
//! the same response. Linux only.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::{env, fs};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use sockserver::{SelectorTCPServer, StreamContext, StreamRequestHandler};

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

fn ours(folder: &Path, workers: usize) -> Result {
    let context = sockssl::create_default_context(sockssl::Purpose::CLIENT_AUTH)?;
    context.load_cert_chain(folder.join("cert.pem"), folder.join("key.pem"))?;
    let server = SelectorTCPServer::builder(|| Page)
        .workers(workers)
        .wrap_request(move |request, _| {
            request.setsockopt(sock::IPPROTO_TCP, sock::TCP_NODELAY, true)?;
            context.wrap_socket_server(request)
        })
        .bind(("127.0.0.1", 0))?;
    println!("{}", server.server_address().port().unwrap());
    Ok(server.serve_forever()?)
}

async fn answer(_request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let response = Response::builder().header("content-type", "text/plain");
    Ok(response.body(Full::new(Bytes::from_static(BODY.as_bytes()))).unwrap())
}

fn hyper(folder: &Path) -> Result {
    let certificate = CertificateDer::from_pem_file(folder.join("cert.pem"))?;
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem"))?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(answer);
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder.auto_date_header(false);
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

/// A server in a process of its own.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(arguments: &[&str], folder: &Path) -> Result<Server> {
        let mut command = Command::new(env::current_exe()?);
        let mut child = command.args(arguments).arg(folder).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)?;
        Ok(Server { port: line.trim().parse()?, child })
    }

    /// Returns the nanoseconds that its threads have run.
    fn cpu(&self) -> Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            sum += text.split(' ').next().unwrap().parse::<u64>()?;
        }
        Ok(sum)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Client = StreamOwned<ClientConnection, TcpStream>;

fn connect(config: &Arc<ClientConfig>, port: u16) -> Result<Client> {
    let connection = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    Ok(StreamOwned::new(connection, stream))
}

fn request(client: &mut Client) -> Result {
    client.write_all(QUESTION)?;
    let (mut answer, mut length) = ([0; 1024], 0);
    while !answer[..length].ends_with(BODY.as_bytes()) {
        length += client.read(&mut answer[length..])?;
    }
    assert_eq!(length, ANSWER.len(), "{:?}", String::from_utf8_lossy(&answer[..length]));
    Ok(())
}

fn compare(folder: &Path, rounds: usize, requests: usize, clients: usize) -> Result {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])?.self_signed(&key)?;
    fs::write(folder.join("cert.pem"), certificate.pem())?;
    fs::write(folder.join("key.pem"), key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone())?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);

    let servers = [Server::start(&["ours", "1"], folder)?, Server::start(&["hyper"], folder)?];
    let (mut connections, mut ciphers) = (Vec::new(), Vec::new());
    for server in &servers {
        let mut of_one: Vec<Client> = Vec::new();
        for _ in 0..clients {
            let mut client = connect(&config, server.port)?;
            for _ in 0..20 {
                request(&mut client)?;
            }
            of_one.push(client);
        }
        ciphers.push(of_one[0].conn.negotiated_cipher_suite().unwrap().suite());
        connections.push(of_one);
    }
    assert_eq!(ciphers[0], ciphers[1]);
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (index, server) in servers.iter().enumerate() {
            let begin = server.cpu()?;
            for number in 0..requests {
                request(&mut connections[index][number % clients])?;
            }
            costs[index].push((server.cpu()? - begin) as f64 / requests as f64 / 1000.0);
        }
    }
    let mut ratios: Vec<_> = costs[0].iter().zip(&costs[1]).map(|(ours, hyper)| ours / hyper).collect();
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let [ours, hyper] = &mut costs;
    println!(
        "ours {:.2} µs, hyper {:.2} µs, ratio {:.3}",
        median(ours),
        median(hyper),
        median(&mut ratios)
    );
    Ok(())
}

fn main() -> Result {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number =
        |index: usize, default: usize| arguments.get(index).map_or(Ok(default), |word| word.parse());
    match arguments.first().map(String::as_str) {
        Some("ours") => ours(Path::new(&arguments[2]), number(1, 1)?),
        Some("hyper") => hyper(Path::new(&arguments[1])),
        Some("compare") => {
            let folder = tempfile::tempdir()?;
            compare(folder.path(), number(1, 31)?, number(2, 3000)?, number(3, 16)?)
        }
        _ => Err("usage: https compare [ROUNDS [REQUESTS [CLIENTS]]]".into()),
    }
}
