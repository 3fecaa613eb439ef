//! The comparison with hyper and tokio-rustls.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::{env, fs};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{BODY, Client, Result, client_config, connect, create_certificate, request};

async fn answer(_request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let response = Response::builder().header("content-type", "text/plain");
    Ok(response.body(Full::new(Bytes::from_static(BODY.as_bytes()))).unwrap())
}

pub(crate) fn hyper(folder: &Path) -> Result {
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

pub(crate) fn compare(folder: &Path, rounds: usize, requests: usize, clients: usize) -> Result {
    create_certificate(folder)?;
    let config = client_config(folder)?;

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
