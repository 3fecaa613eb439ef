//! The promise: a FIFO, a device or a directory in place of a file ends with an error in bounded time
//! and with bounded memory. A FIFO with a writer is read. A key log never blocks a handshake.

#![cfg(unix)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sockssl::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext};
use support::{LIMIT, Pki, wrapped};

fn fifo(pki: &Pki, name: &str) -> PathBuf {
    let path = pki.path(name);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// Runs a call that must return within the limit.
fn within<T: Send + 'static>(what: &str, call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(call()));
    receiver.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("{what} blocks"))
}

/// A call that reads one file.
type Load = fn(&Pki, &Path) -> io::Result<()>;

const LOADS: [(&str, Load); 4] = [
    ("certificate", |pki, file| {
        SSLContext::new(PROTOCOL_TLS_SERVER).load_cert_chain(file, pki.path("server.key"))
    }),
    ("key", |pki, file| SSLContext::new(PROTOCOL_TLS_SERVER).load_cert_chain(pki.path("server.pem"), file)),
    ("encrypted key", |pki, file| {
        let context = SSLContext::new(PROTOCOL_TLS_SERVER);
        context.load_cert_chain_with_password(pki.path("server.pem"), file, "secret")
    }),
    ("authority", |_, file| SSLContext::new(PROTOCOL_TLS_CLIENT).load_verify_locations(file)),
];

/// Calls all loads at once, and returns their errors.
fn errors_of(file: &Path) -> Vec<io::Error> {
    let loads = LOADS.map(|(what, load)| {
        let file = file.to_owned();
        thread::spawn(move || within(what, move || load(&Pki::new(), &file)).expect_err(what))
    });
    loads.map(|load| load.join().unwrap()).into_iter().collect()
}

#[test]
fn fifos_with_writers_are_read() {
    let pki = Pki::new();
    let (cert, key, ca) = (fifo(&pki, "cert"), fifo(&pki, "key"), fifo(&pki, "ca"));
    for (from, to) in [("server.pem", &cert), ("server.key", &key), ("ca.pem", &ca)] {
        let (text, to) = (pki.read(from), to.clone());
        thread::spawn(move || {
            // A writer that starts late and writes in parts.
            thread::sleep(Duration::from_millis(50));
            let mut fifo = OpenOptions::new().write(true).open(to).unwrap();
            for part in text.as_bytes().chunks(100) {
                fifo.write_all(part).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
    }
    let (server, client) = within("the FIFOs", move || {
        let (server, client) = (SSLContext::new(PROTOCOL_TLS_SERVER), SSLContext::new(PROTOCOL_TLS_CLIENT));
        server.load_cert_chain(cert, key).unwrap();
        client.load_verify_locations(ca).unwrap();
        (server, client)
    });
    wrapped(&server, &client);
}

/// As in `program <(cat server.pem)`.
#[test]
fn a_process_substitution_is_read() {
    let pki = Pki::new();
    let cat = |name: &str, delay: &str| {
        let script = format!("sleep {delay}; cat \"$0\"");
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(pki.path(name)).stdout(Stdio::piped()).spawn().unwrap()
    };
    let (mut cert, mut key) = (cat("server.pem", "0"), cat("server.key", "0.2"));
    // A writer that has ended before the file is opened.
    cert.wait().unwrap();
    let path =
        |child: &std::process::Child| format!("/dev/fd/{}", child.stdout.as_ref().unwrap().as_raw_fd());
    let (cert_path, key_path) = (path(&cert), path(&key));
    within("the pipes", move || SSLContext::new(PROTOCOL_TLS_SERVER).load_cert_chain(cert_path, key_path))
        .unwrap();
    key.wait().unwrap();
}

#[test]
fn a_fifo_without_a_writer_is_an_error_in_bounded_time() {
    let pki = Pki::new();
    let file = fifo(&pki, "fifo");
    for error in errors_of(&file) {
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(error.to_string().contains("fifo"), "{error}");
    }
}

#[test]
fn a_reload_of_a_fifo_changes_nothing_and_does_not_block_handshakes() {
    let pki = Pki::new();
    let server = pki.server();
    fs::remove_file(pki.path("server.key")).unwrap();
    fifo(&pki, "server.key");
    let reloading = {
        let server = server.clone();
        thread::spawn(move || within("the reload", move || server.reload()))
    };
    let client = pki.client();
    let begin = Instant::now();
    while !reloading.is_finished() && begin.elapsed() < Duration::from_secs(1) {
        let one = Instant::now();
        wrapped(&server, &client);
        assert!(one.elapsed() < Duration::from_secs(3), "the reload blocks a handshake");
    }
    assert_eq!(reloading.join().unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(server.session_stats().reloads_failed, 1);
    wrapped(&server, &client);
}

#[test]
fn devices_directories_and_sockets_are_errors() {
    let pki = Pki::new();
    let listener = UnixListener::bind(pki.path("socket")).unwrap();
    for error in errors_of(&pki.path("socket")) {
        assert!(error.to_string().contains("socket"), "{error}");
    }
    drop(listener);
    // Larger than the memory.
    File::create(pki.path("sparse")).unwrap().set_len(1 << 40).unwrap();
    let mut errors = errors_of(&pki.path("sparse"));
    let load = |context: SSLContext| context.load_verify_locations("/dev/zero");
    errors.push(within("the device", move || load(SSLContext::new(PROTOCOL_TLS_CLIENT))).unwrap_err());
    for error in errors {
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains("larger than"), "{error}");
    }
    for error in errors_of(Path::new("/dev/null")) {
        assert!(error.to_string().contains("/dev/null"), "{error}");
    }
    fs::create_dir(pki.path("directory")).unwrap();
    for error in errors_of(&pki.path("directory")).iter().take(3) {
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory, "{error}");
    }
    // In a directory of authorities, only files are read.
    fifo(&pki, "directory/fifo");
    symlink(pki.path("directory/fifo"), pki.path("directory/link")).unwrap();
    symlink("/dev/zero", pki.path("directory/zero")).unwrap();
    fs::copy(pki.path("ca.pem"), pki.path("directory/ca.pem")).unwrap();
    let directory = pki.path("directory");
    within("the directory", move || SSLContext::new(PROTOCOL_TLS_CLIENT).load_verify_locations(directory))
        .unwrap();
}

#[test]
fn a_key_log_that_stalls_does_not_block_handshakes() {
    let pki = Pki::new();
    let path = fifo(&pki, "keys");
    // Without a reader.
    let (client, to) = (pki.client(), path.clone());
    let error = within("the key log", move || client.set_keylog_filename(to)).unwrap_err();
    assert!(error.to_string().contains("keys"), "{error}");
    // With a reader that does not read.
    let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (server, client) = (pki.server(), pki.client());
    server.set_keylog_filename(&path).unwrap();
    client.set_keylog_filename(&path).unwrap();
    // The room of a pipe is 64 KiB, and a handshake writes five lines of some 160 bytes on each side.
    let (server, client) = within("the handshakes", move || {
        for _ in 0..60 {
            wrapped(&server, &client);
        }
        (server, client)
    });
    // The lines that were written are whole, and are written again once there is room.
    let mut text = vec![0; 1 << 20];
    let count = reader.read(&mut text).unwrap();
    assert!(count > 10_000, "{count}");
    wrapped(&server, &client);
    let more = reader.read(&mut text[count..]).unwrap();
    assert!(more > 500, "{more}");
    let text = String::from_utf8(text[..count + more].to_vec()).unwrap();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let is_hexadecimal = |word: &&str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(
            words.len() == 3 && words[1].len() == 64 && words[1..].iter().all(is_hexadecimal),
            "{line}"
        );
    }
    // Without a reader again.
    drop(reader);
    within("the handshake", move || wrapped(&server, &client));
}
