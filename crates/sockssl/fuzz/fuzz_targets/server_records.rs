//! The invariant: for every input of a client, the server completes the handshake or returns an
//! error in time, without a panic or an infinite loop.
//!
//! The first byte of the input gives the size of the pieces that the client sends, and the rest
//! is the data. If the lowest bit of the first byte is set, a complete ClientHello is sent first.

#![no_main]

use std::fs;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use sockssl::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext, SSLError};

static SERVER: LazyLock<SSLContext> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let file = std::env::temp_dir().join(format!("sockssl-fuzz-{}.pem", std::process::id()));
    fs::write(&file, certificate.pem() + &key.serialize_pem()).unwrap();
    let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    context.load_cert_chain(&file, &file).unwrap();
    fs::remove_file(file).unwrap();
    context.set_alpn_protocols(["h2", "http/1.1"]).unwrap();
    context
});

static HELLO: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.set_check_hostname(false);
    client.set_verify_mode(sockssl::CERT_NONE).unwrap();
    let (ours, theirs) = sock::socketpair().unwrap();
    ours.settimeout(Duration::from_millis(50)).unwrap();
    let options = sockssl::WrapOptions::new();
    let _ = client.wrap_socket_client_with(ours, "localhost", &options);
    theirs.recv(10_000).unwrap()
});

fuzz_target!(|input: &[u8]| {
    let Some((&shape, data)) = input.split_first() else {
        return;
    };
    let (server, client) = sock::socketpair().unwrap();
    for end in [&server, &client] {
        end.settimeout(Duration::from_secs(5)).unwrap();
    }
    let begin = Instant::now();
    let mut bytes = if shape & 1 == 1 { HELLO.clone() } else { Vec::new() };
    bytes.extend(data);
    let sender = thread::spawn(move || {
        for piece in bytes.chunks(1 + usize::from(shape >> 1) * 8) {
            if client.sendall(piece).is_err() {
                break;
            }
        }
        let _ = client.shutdown(sock::SHUT_WR);
        // Receive until the server closes the connection.
        while client.recv(1 << 16).is_ok_and(|data| !data.is_empty()) {}
    });
    match SERVER.wrap_socket_server(server) {
        Ok(connection) => while connection.recv(1000).is_ok_and(|data| !data.is_empty()) {},
        Err(error) => assert!(
            SSLError::of(&error).is_some() || sock::errno(&error).is_some(),
            "the error has neither a reason nor an errno: {error}"
        ),
    }
    sender.join().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
});
