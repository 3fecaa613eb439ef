// Certificates and connections for the examples in the documentation of this crate. An example
// includes this file in a module that is not shown, and runs in a process of its own.

use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process;
use std::thread;

use sockssl::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext, SSLSocket};

/// The current directory of an example. It is removed at the end.
pub struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = env::set_current_dir(env::temp_dir());
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Enters a new directory with `cert.pem`, a certificate for localhost, and its key `key.pem`.
pub fn enter() -> io::Result<Folder> {
    let folder = Folder(env::temp_dir().join(format!("sockssl-example-{}", process::id())));
    fs::create_dir_all(&folder.0)?;
    env::set_current_dir(&folder.0)?;
    write_certificate("cert.pem", "key.pem", "localhost")?;
    Ok(folder)
}

/// Writes a certificate for a host, and its key.
pub fn write_certificate(certfile: &str, keyfile: &str, host: &str) -> io::Result<()> {
    let key = rcgen::KeyPair::generate().map_err(io::Error::other)?;
    let mut params = rcgen::CertificateParams::new([host.to_owned()]).map_err(io::Error::other)?;
    params.distinguished_name.push(rcgen::DnType::CommonName, host);
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    fs::write(certfile, certificate.pem())?;
    fs::write(keyfile, key.serialize_pem())
}

/// Writes a certificate, and its key, which is encrypted with the password `secret`.
pub fn write_encrypted(certfile: &str, keyfile: &str) -> io::Result<()> {
    fs::write(certfile, CERTIFICATE)?;
    fs::write(keyfile, ENCRYPTED_KEY)
}

/// Creates a context for servers with `cert.pem`.
pub fn server() -> io::Result<SSLContext> {
    let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    context.load_cert_chain("cert.pem", "key.pem")?;
    Ok(context)
}

/// Creates a context for clients that trusts `cert.pem`.
pub fn client() -> io::Result<SSLContext> {
    let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    context.load_verify_locations("cert.pem")?;
    Ok(context)
}

/// Returns two connected sockets.
pub fn sockets() -> io::Result<(sock::Socket, sock::Socket)> {
    let listener = sock::create_server(("127.0.0.1", 0))?;
    let port = listener.getsockname()?.port().unwrap();
    let client = sock::create_connection(("127.0.0.1", port))?;
    Ok((client, listener.accept()?.0))
}

/// Returns the client and the server of a TLS connection.
pub fn connect(client: &SSLContext, server: &SSLContext) -> io::Result<(SSLSocket, SSLSocket)> {
    let (ours, theirs) = sockets()?;
    thread::scope(|scope| {
        let server = scope.spawn(|| server.wrap_socket_server(theirs));
        let client = client.wrap_socket_client(ours, "localhost");
        let server = server.join().unwrap();
        Ok((client?, server?))
    })
}

/// Returns the client and the server of a TLS connection with default contexts.
pub fn pair() -> io::Result<(SSLSocket, SSLSocket)> {
    connect(&client()?, &server()?)
}

/// Starts a server for one client, which gets back what it sends. Returns the port.
pub fn echo() -> io::Result<u16> {
    let context = server()?;
    let listener = sock::create_server(("127.0.0.1", 0))?;
    let port = listener.getsockname()?.port().unwrap();
    thread::spawn(move || -> io::Result<()> {
        let sock = context.wrap_socket_server(listener.accept()?.0)?;
        loop {
            match sock.recv(1024)? {
                data if data.is_empty() => return sock.close(),
                data => sock.sendall(&data)?,
            }
        }
    });
    Ok(port)
}

const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBljCCATugAwIBAgIUZ7yMeEepy1uqcKgA+AKzonqpMKkwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyOTEyMTkwNVoYDzIxMjYxMTA1
MTIxOTA1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATkm7WX+iaEH7mrVU10pAwY37WVA+mODnM1TnFMfqDHwcq6UDxCwxnw
2VdrT5D07B/Jp7iiLJGcFJO2JM3rv1r2o2kwZzAdBgNVHQ4EFgQU+8mT7Yf1HfqR
5kl+ZOu12LG5uKwwHwYDVR0jBBgwFoAU+8mT7Yf1HfqR5kl+ZOu12LG5uKwwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SQAwRgIhAPV/HDw69XNnuan4P4KdCJjA8tKkTnyZageWWB/QFbu0AiEAkQY82ogG
8JjBTco6g0fK9AksjlSSiYqB8HnatPrTGrA=
-----END CERTIFICATE-----
";

const ENCRYPTED_KEY: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHjME4GCSqGSIb3DQEFDTBBMCkGCSqGSIb3DQEFDDAcBAiBqPC438WdLgICCAAw
DAYIKoZIhvcNAgkFADAUBggqhkiG9w0DBwQIM81p2PNO5DQEgZC6vc0EsebT/BmA
F928x/nwyOd+iiNDkYxllgPv2ovs7EfUdxhsORSmLNtONbjOOCn0AJ6M4JTgRfrV
Rr/rr3k4y8I27ZdxC28AVmWPqriv/wbresTKiYxHWb6/kXHLno9dncq+Tg4gxtRU
iM1CRkGicEeCyjnnItjBhN9BAXD1+j3pLBGg85WQx8SMVCrdq1I=
-----END ENCRYPTED PRIVATE KEY-----
";
