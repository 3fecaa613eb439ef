//! Compares servers in one run: `sockssl`, `openssl s_server`, and a threaded Python server.
//!
//! `cargo bench -p sockssl` prints full handshakes and megabytes per second, the server's CPU
//! time for each, and the ratios to openssl and Python. `sockssl` is the client of all servers.
//! The servers take turns in each round, and the median is printed, so that noise affects all
//! of them.
//!
//! Arguments after `--`: `check` fails if the bulk rate is below 0.9 of openssl's or the
//! handshake rate is below Python's; `short` runs fewer and shorter rounds.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use sockssl::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext, WrapOptions};

const MEGABYTE: usize = 1 << 20;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [word, directory] = &arguments[..] {
        if word == "serve" {
            return serve(Path::new(directory));
        }
    }
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let (rounds, handshakes, megabytes) = if has("short") { (3, 200, 64) } else { (7, 600, 256) };
    let kept = Directory::new()?;
    let directory = &kept.0;
    certificates(directory, megabytes)?;
    let servers = ["sockssl", "openssl", "python"]
        .into_iter()
        .map(|name| Server::start(name, directory))
        .collect::<io::Result<Vec<_>>>()?;

    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.load_verify_locations(directory.join("cert.pem"))?;
    // Every handshake is a full one.
    client.set_num_tickets(0);
    let mut results = vec![Results::default(); servers.len()];
    for _ in 0..rounds {
        for (server, results) in servers.iter().zip(&mut results) {
            let (rate, cost) = server.measure(handshakes, || do_handshake(&client, server.port))?;
            results.handshakes.push(rate);
            results.handshake_cost.push(cost);
            let (rate, cost) = server.measure(2, || fetch(&client, server.port, megabytes))?;
            results.bulk.push(rate * megabytes as f64);
            results.bulk_cost.push(cost / megabytes as f64);
        }
    }
    println!(
        "Medians of {rounds} rounds of {handshakes} full handshakes and 2 × {megabytes} MB, one connection at a \
         time, with sockssl as the client.\nCPU time has a resolution of 10 ms."
    );
    if has("short") {
        println!("A short run only shows that the benchmark works. Measure without `short`.");
    }
    println!(
        "{:10} {:>14} {:>12} {:>12} {:>12}",
        "server", "handshakes/s", "CPU each", "MB/s", "CPU per MB"
    );
    for (server, results) in servers.iter().zip(&results) {
        println!(
            "{:10} {:>14.0} {:>9.0} µs {:>12.0} {:>9.0} µs",
            server.name,
            median(&results.handshakes),
            median(&results.handshake_cost) * 1e6,
            median(&results.bulk),
            median(&results.bulk_cost) * 1e6,
        );
    }
    let ratio =
        |of: fn(&Results) -> &[f64], other: usize| median(of(&results[0])) / median(of(&results[other]));
    for (other, name) in [(1, "openssl"), (2, "python")] {
        println!(
            "ratio to {name}: handshakes {:.2}, bulk {:.2}; CPU: handshakes {:.2}, bulk {:.2}",
            ratio(|results| &results.handshakes, other),
            ratio(|results| &results.bulk, other),
            ratio(|results| &results.handshake_cost, other),
            ratio(|results| &results.bulk_cost, other),
        );
    }
    let (bulk, full) = (ratio(|results| &results.bulk, 1), ratio(|results| &results.handshakes, 2));
    if has("check") && (bulk < 0.9 || full < 1.0) {
        return Err(io::Error::other(format!(
            "too slow: bulk {bulk:.2} of openssl, handshakes {full:.2} of Python"
        )));
    }
    Ok(())
}

#[derive(Clone, Default)]
struct Results {
    handshakes: Vec<f64>,
    handshake_cost: Vec<f64>,
    bulk: Vec<f64>,
    bulk_cost: Vec<f64>,
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn do_handshake(client: &SSLContext, port: u16) -> io::Result<()> {
    let sock = sock::create_connection(("127.0.0.1", port))?;
    sock.settimeout(Duration::from_secs(20))?;
    client.wrap_socket_client(sock, "localhost")?.close()
}

fn fetch(client: &SSLContext, port: u16, megabytes: usize) -> io::Result<()> {
    let sock = sock::create_connection(("127.0.0.1", port))?;
    sock.settimeout(Duration::from_secs(60))?;
    let options = WrapOptions::new().suppress_ragged_eofs(true);
    let sock = client.wrap_socket_client_with(sock, "localhost", &options)?;
    sock.sendall(b"GET /big HTTP/1.0\r\n\r\n")?;
    let (mut received, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match sock.recv_into(&mut buffer)? {
            0 => break,
            count => received += count,
        }
    }
    match received >= megabytes * MEGABYTE {
        true => Ok(()),
        false => Err(io::Error::other(format!("received only {received} bytes"))),
    }
}

struct Server {
    name: &'static str,
    child: Child,
    port: u16,
}

impl Server {
    fn start(name: &'static str, directory: &Path) -> io::Result<Server> {
        let mut command = match name {
            "openssl" => {
                let mut command = Command::new("openssl");
                command.args([
                    "s_server",
                    "-accept",
                    "127.0.0.1:0",
                    "-cert",
                    "cert.pem",
                    "-key",
                    "key.pem",
                    "-WWW",
                ]);
                command
            }
            "python" => {
                let mut command = Command::new("python3");
                command.args(["-u", "-c", PYTHON]);
                command
            }
            _ => {
                let mut command = Command::new(env::current_exe()?);
                command.arg("serve").arg(directory);
                command
            }
        };
        let mut child = command
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        // The servers print the port in different formats: `ACCEPT 127.0.0.1:4711`, `4711`.
        let mut output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (mut line, mut byte) = (String::new(), [0]);
        let port = loop {
            if output.read(&mut byte)? == 0 {
                return Err(io::Error::other(format!("{name} has exited: {line}")));
            }
            if byte[0] != b'\n' {
                line.push(char::from(byte[0]));
            } else if let Ok(port) = line.rsplit([':', ' ']).next().unwrap_or_default().parse() {
                break port;
            } else {
                line.clear();
            }
        };
        // Without a reader the server would block when the pipe is full.
        thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        Ok(Server { name, child, port })
    }

    /// Returns how often `work` runs per second, and the server's CPU time for each run.
    fn measure(&self, count: usize, work: impl Fn() -> io::Result<()>) -> io::Result<(f64, f64)> {
        work()?;
        let (cost, begin) = (self.cpu_time(), Instant::now());
        for _ in 0..count {
            work()?;
        }
        let rate = count as f64 / begin.elapsed().as_secs_f64();
        Ok((rate, (self.cpu_time() - cost) / count as f64))
    }

    /// Returns the user and system time so far, in seconds, or 0 without /proc.
    fn cpu_time(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks: f64 =
            fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        // USER_HZ is 100 on every Linux.
        ticks / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that is removed on drop.
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Directory> {
        let path = env::temp_dir().join(format!("sockssl-bench-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn certificates(directory: &Path, megabytes: usize) -> io::Result<()> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .and_then(|params| params.self_signed(&key))
        .map_err(io::Error::other)?;
    fs::write(directory.join("cert.pem"), certificate.pem())?;
    fs::write(directory.join("key.pem"), key.serialize_pem())?;
    let mut big = io::BufWriter::new(fs::File::create(directory.join("big"))?);
    for _ in 0..megabytes {
        big.write_all(&vec![b'x'; MEGABYTE])?;
    }
    big.flush()
}

/// Runs the `sockssl` server, with a thread for each connection.
fn serve(directory: &Path) -> io::Result<()> {
    let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    context.load_cert_chain(directory.join("cert.pem"), directory.join("key.pem"))?;
    let listener = sock::create_server(("127.0.0.1", 0))?;
    println!("{}", listener.getsockname()?.port().unwrap_or_default());
    loop {
        let (connection, _) = listener.accept()?;
        let (context, big) = (context.clone(), directory.join("big"));
        thread::spawn(move || -> io::Result<()> {
            let connection = context.wrap_socket_server(connection)?;
            if connection.recv(1000)?.is_empty() {
                return Ok(());
            }
            let (mut file, mut buffer) = (fs::File::open(big)?, vec![0; 1 << 16]);
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => connection.sendall(&buffer[..count])?,
                }
            }
        });
    }
}

/// The same server in Python.
const PYTHON: &str = r#"
import socket, ssl, threading
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain("cert.pem", "key.pem")
def serve(connection):
    try:
        with context.wrap_socket(connection, server_side=True) as connection:
            if connection.recv(1000):
                with open("big", "rb") as file:
                    while data := file.read(1 << 16):
                        connection.sendall(data)
    except OSError:
        pass
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()
"#;
