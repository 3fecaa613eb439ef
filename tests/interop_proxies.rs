//! HAProxy and nginx in front of servers, with the configurations of `docs/operations.md`.
//!
//! A program that is not installed is skipped with a message. With `SOCK_REQUIRE_PEERS=1` that is a
//! failure.
#![cfg(unix)]

#[path = "../crates/sockserver/tests/support/mod.rs"]
mod support;

use std::fs;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sock::Socket;
use sockserver::testing::{self, Running};
use sockserver::{
    ProxyProtocol, SelectorTCPServer, SelectorUnixStreamServer, StreamContext, ThreadingTCPServer,
    handler_fn,
};

use sockssl::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext};

use support::{LIMIT, LOOPBACK, wait_for_stats};

/// The address that clients connect from, which a proxy does not use.
const CLIENT: &str = "127.0.0.77";

/// A proxy, which is killed when the test ends.
struct Proxy {
    process: Child,
    port: u16,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns whether a program is installed.
fn is_installed(peer: &str) -> bool {
    if Command::new(peer).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
        return true;
    }
    let required = std::env::var_os("SOCK_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "SOCK_REQUIRE_PEERS=1 is set, but {peer} is not on PATH");
    // libtest does not capture the stream itself. An error of it is ignored.
    let _ = writeln!(io::stderr(), "\n*** interop: {peer} is not on PATH: SKIPPED ***");
    false
}

/// Returns the configuration in the section of `docs/operations.md`.
fn configuration(section: &str) -> String {
    let page = include_str!("../docs/operations.md");
    let section = page.split(&format!("### {section}\n")).nth(1).expect("the section exists");
    let block = section.split("```text\n").nth(1).expect("the section has a configuration");
    block.split("```").next().unwrap().to_owned()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    sock::create_server(LOOPBACK).unwrap().getsockname().unwrap().port().unwrap()
}

/// Starts a proxy and waits until it listens.
fn start(name: &str, directory: &Path, configuration: &str, server: &str) -> Proxy {
    let port = free_port();
    let configuration = configuration
        .replace("0.0.0.0:8080", &format!("127.0.0.1:{port}"))
        .replace("127.0.0.1:9000", server);
    let path = directory.join("proxy.conf");
    let mut command = Command::new(name);
    match name {
        "haproxy" => {
            fs::write(&path, configuration).unwrap();
            command.args(["-db", "-f"]).arg(&path);
        }
        _ => {
            let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
            let load = if module.exists() {
                format!("load_module {};\n", module.display())
            } else {
                String::new()
            };
            let own = format!(
                "{load}daemon off;\nmaster_process off;\nerror_log stderr;\npid {}/pid;\n",
                directory.display()
            );
            fs::write(&path, own + &configuration).unwrap();
            command.arg("-p").arg(directory).arg("-c").arg(&path);
        }
    }
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut proxy = Proxy { process, port };
    let begin = Instant::now();
    while sock::create_connection(("127.0.0.1", port)).is_err() {
        assert!(proxy.process.try_wait().unwrap().is_none(), "{name} has exited");
        assert!(begin.elapsed() < LIMIT, "{name} does not listen");
        support::sleep_briefly();
    }
    proxy
}

/// Answers with the client's address and the line.
fn describe(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    if cx.rfile.read_line(&mut line)? > 0 {
        let version = cx.proxy_header().map_or(0, |header| header.version());
        write!(cx.wfile, "{version} {} {line}", cx.client_address)?;
    }
    Ok(())
}

fn ask(proxy: &Proxy) -> (String, String) {
    let client = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.bind((CLIENT, 0)).unwrap();
    client.connect(("127.0.0.1", proxy.port)).unwrap();
    client.sendall(b"hello\n").unwrap();
    let mut answer = String::new();
    client.makefile_rb().read_line(&mut answer).unwrap();
    (answer, client.getsockname().unwrap().to_string())
}

fn proxies() -> ProxyProtocol {
    ProxyProtocol::from_networks(["127.0.0.1"]).unwrap().header_timeout(Duration::from_secs(2))
}

/// Checks that the server sees the client behind the proxy, and refuses clients that do not come
/// through it.
fn names_the_client(name: &str, configuration: &str, version: u8, server: &Running) {
    let directory = tempfile::tempdir().unwrap();
    let address = match server.address().path() {
        Some(path) => format!("{}{}", if name == "nginx" { "unix:" } else { "unix@" }, path.display()),
        None => server.address().to_string(),
    };
    let proxy = start(name, directory.path(), configuration, &address);
    for _ in 0..20 {
        let (answer, client) = ask(&proxy);
        assert_eq!(answer, format!("{version} {client} hello\n"), "{name}");
    }
    drop(proxy);
    if server.address().path().is_none() {
        let rejected = server.handle().stats().rejected;
        let forger = support::connect_from(CLIENT, server.address());
        let _ = forger.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nhello\n");
        let received = support::read_to_end(&forger);
        assert_eq!(received.replace("ConnectionReset", ""), "");
        wait_for_stats(server.handle(), |stats| stats.rejected > rejected);
    }
}

/// Checks that a proxy names the client for servers of several models and over a Unix socket.
fn works_behind(name: &str, configuration: &str, version: u8) {
    let threading = ThreadingTCPServer::builder(handler_fn(describe)).proxy_protocol(proxies());
    names_the_client(name, configuration, version, &testing::serve(threading.bind(LOOPBACK).unwrap()));
    let selector = SelectorTCPServer::builder(handler_fn(describe)).proxy_protocol(proxies());
    names_the_client(name, configuration, version, &testing::serve(selector.bind(LOOPBACK).unwrap()));
    let directory = tempfile::tempdir().unwrap();
    let unix = SelectorUnixStreamServer::builder(handler_fn(describe));
    let unix = unix.proxy_protocol(ProxyProtocol::from_unix_peers());
    let unix = testing::serve(unix.bind(directory.path().join("socket")).unwrap());
    names_the_client(name, configuration, version, &unix);
}

#[test]
fn servers_behind_haproxy_see_the_client() {
    if !is_installed("haproxy") {
        return;
    }
    let version_2 = configuration("HAProxy");
    works_behind("haproxy", &version_2, 2);
    let version_1 = version_2.replace(" send-proxy-v2 proxy-v2-options crc32c,unique-id", " send-proxy");
    assert_ne!(version_1, version_2);
    works_behind("haproxy", &version_1, 1);
}

/// The proxy passes TLS on, and its header comes before the handshake.
#[test]
fn a_tls_server_behind_haproxy_sees_the_client() {
    if !is_installed("haproxy") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    fs::write(file("cert.pem"), certificate.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(file("key.pem"), key.serialize_pem()).unwrap();
    let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    context.load_cert_chain(file("cert.pem"), file("key.pem")).unwrap();
    let server = SelectorTCPServer::builder(handler_fn(describe))
        .proxy_protocol(proxies())
        .wrap_request(move |request, _| context.wrap_socket_server(request));
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let proxy =
        start("haproxy", directory.path(), &configuration("HAProxy"), &server.address().to_string());
    let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    context.load_verify_locations(file("cert.pem")).unwrap();
    for _ in 0..10 {
        let client = support::connect_from(CLIENT, &SocketAddr::from(([127, 0, 0, 1], proxy.port)).into());
        let own = client.getsockname().unwrap();
        let client = context.wrap_socket_client(client, "localhost").unwrap();
        client.sendall(b"hello\n").unwrap();
        let mut answer = String::new();
        client.makefile_rb().read_line(&mut answer).unwrap();
        assert_eq!(answer, format!("2 {own} hello\n"));
    }
}

#[test]
fn servers_behind_nginx_see_the_client() {
    if !is_installed("nginx") {
        return;
    }
    works_behind("nginx", &configuration("nginx"), 1);
}
