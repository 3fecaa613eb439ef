//! One measurement: starts a server, loads it, and stops it.

use std::fs::File;
use std::io::{self, Read};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::modes::{Mode, On};
use crate::servers::{Program, Server};

/// The report of the load generator, whose `report.rs` documents the fields. A program
/// that measures itself reports only the first three.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) rate: f64,
    pub(crate) cpu: f64,
    pub(crate) operations: u64,
    #[serde(default)]
    pub(crate) p50: f64,
    #[serde(default)]
    pub(crate) p99: f64,
    #[serde(default)]
    pub(crate) switches: f64,
    #[serde(default)]
    pub(crate) other_cores: f64,
    pub(crate) idle: Option<Idle>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Idle {
    pub(crate) user: f64,
    pub(crate) page_tables: f64,
    pub(crate) kernel_stacks: f64,
    pub(crate) slab: f64,
    pub(crate) threads: u64,
}

/// Paths of the programs, and parameters of the measurements.
pub(crate) struct Bench {
    /// The folder with `c`, `go`, `python`.
    pub(crate) root: PathBuf,
    /// The folder with `release` and `peers`.
    pub(crate) target: PathBuf,
    /// The `ours` of an earlier build.
    pub(crate) earlier: Option<PathBuf>,
    pub(crate) scratch: PathBuf,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
    /// CPUs of the server and of the load.
    pub(crate) cpus: Option<(usize, usize)>,
}

/// System calls and context switches for each operation.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) calls: f64,
    pub(crate) switches: f64,
}

impl Bench {
    /// Returns the path of the file that bulk modes send.
    pub(crate) fn file(&self) -> PathBuf {
        self.scratch.join("file")
    }

    /// Returns the command of a server, or `None` if it is not available.
    pub(crate) fn program(&self, server: &Server) -> Option<Vec<PathBuf>> {
        let release = self.target.join("release");
        let words = match server.program {
            Program::Ours => vec![release.join("ours")],
            Program::Earlier => vec![self.earlier.clone()?],
            Program::Rust => vec![release.join("peers")],
            Program::Recv => vec![release.join("recv")],
            Program::C(name) => vec![self.target.join("peers").join(name)],
            Program::Go => vec![self.target.join("peers/goecho")],
            Program::Python => vec!["python3".into(), self.root.join("python/servers.py")],
        };
        let found = match server.program {
            Program::Python => Command::new("python3").arg("--version").output().is_ok(),
            Program::Ours | Program::Earlier => {
                models(&words[0]).iter().any(|model| model == server.words[0])
            }
            _ => words[0].exists(),
        };
        found.then_some(words)
    }

    pub(crate) fn measure(&self, mode: &Mode, server: &Server) -> io::Result<Report> {
        if server.program == Program::Recv {
            let mut command = self.command(server, "", None)?;
            command.args(["--seconds", &self.seconds.to_string()]);
            if let Some((cpu, _)) = self.cpus {
                command.args(["--cpu", &cpu.to_string()]);
            }
            return read_report(command);
        }
        let (running, address) = self.start(mode, server)?;
        let mut load = self.load(mode, server, &running, &address);
        load.args(["--seconds", &self.seconds.to_string(), "--warm-up", &self.warm_up.to_string()]);
        read_report(load)
    }

    /// Counts system calls and context switches with perf(1), in a separate run.
    pub(crate) fn count(&self, mode: &Mode, server: &Server) -> io::Result<Counts> {
        let (running, address) = self.start(mode, server)?;
        let load = self.load(mode, server, &running, &address);
        let output = self.scratch.join("perf");
        let processes: Vec<_> = running.processes().iter().map(i32::to_string).collect();
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter,context-switches", "-p"]);
        perf.arg(processes.join(",")).arg("-o").arg(&output).arg("--").arg(load.get_program());
        perf.args(load.get_args()).args(["--seconds", "1", "--warm-up", "0"]);
        let report = read_report(perf)?;
        let text = std::fs::read_to_string(output)?;
        let counted = |event: &str| {
            let line = text.lines().find(|line| line.contains(event));
            line.and_then(|line| line.split(',').next()?.parse::<f64>().ok())
        };
        match (counted("sys_enter"), counted("context-switches")) {
            (Some(calls), Some(switches)) => {
                let operations = report.operations.max(1) as f64;
                Ok(Counts { calls: calls / operations, switches: switches / operations })
            }
            _ => Err(io::Error::other("perf has no permission to count")),
        }
    }

    fn load(&self, mode: &Mode, server: &Server, running: &Running, address: &str) -> Command {
        let target = if mode.on == On::Unix { address.to_owned() } else { format!("127.0.0.1:{address}") };
        let mut load = Command::new(self.target.join("release/load"));
        load.arg(mode.load[0]).arg(target);
        let mut words = mode.load[1..].iter();
        while let Some(&word) = words.next() {
            if word == "--idle" && server.alone {
                words.next();
            } else {
                load.arg(word);
            }
        }
        load.args(["--server", &running.0.id().to_string()]);
        if let Some((_, cpu)) = self.cpus {
            load.args(["--cpu", &cpu.to_string()]);
        }
        load
    }

    fn start(&self, mode: &Mode, server: &Server) -> io::Result<(Running, String)> {
        let address = match mode.on {
            On::Unix => self.scratch.join("socket").display().to_string(),
            On::Tcp | On::Udp => next_port().to_string(),
        };
        if mode.on == On::Unix {
            let _ = std::fs::remove_file(&address);
        }
        let stderr_path = self.scratch.join("stderr");
        let mut command = self.command(server, &address, self.cpus.map(|(cpu, _)| cpu))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&stderr_path)?);
        // A process group of its own, so that all its children can be killed.
        let mut running = Running(command.process_group(0).spawn()?);
        if let Err(error) = wait_until_ready(mode.on, &address, &mut running.0) {
            let mut stderr = String::new();
            File::open(&stderr_path)?.take(300).read_to_string(&mut stderr)?;
            return Err(io::Error::other(format!("{error}: {}", stderr.trim())));
        }
        // Work that follows the first response is not part of the measurement.
        thread::sleep(Duration::from_millis(50));
        Ok((running, address))
    }

    fn command(&self, server: &Server, address: &str, cpu: Option<usize>) -> io::Result<Command> {
        let program =
            self.program(server).ok_or_else(|| io::Error::other("the program is not available"))?;
        let mut words: Vec<String> = Vec::new();
        if let Some(cpu) = cpu {
            words.extend(["taskset".into(), "-c".into(), cpu.to_string()]);
        }
        words.extend(program.iter().map(|word| word.display().to_string()));
        let file = self.file().display().to_string();
        words.extend(
            server.words.iter().map(|word| word.replace("{address}", address).replace("{file}", &file)),
        );
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        Ok(command)
    }
}

/// Returns the models that a build of `ours` supports, or none if it cannot be run.
fn models(program: &Path) -> Vec<String> {
    let output = Command::new(program).arg("--models").output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

/// A running server. Dropping it kills the server and its children.
struct Running(Child);

impl Running {
    /// Returns the process ids of the server and of its descendants.
    fn processes(&self) -> Vec<i32> {
        let mut all = vec![self.0.id() as i32];
        let mut next = 0;
        while let Some(&process) = all.get(next) {
            let path = format!("/proc/{process}/task/{process}/children");
            let children = std::fs::read_to_string(path).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|word| word.parse::<i32>().ok()));
            next += 1;
        }
        all
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

fn read_report(mut command: Command) -> io::Result<Report> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).map_err(|_| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        io::Error::other(stderr.lines().last().unwrap_or("no report").to_owned())
    })
}

fn wait_until_ready(on: On, address: &str, server: &mut Child) -> io::Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10) {
        if let Some(status) = server.try_wait()? {
            return Err(io::Error::other(format!("the server exited: {status}")));
        }
        if is_ready(on, address) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other("the server does not respond"))
}

fn is_ready(on: On, address: &str) -> bool {
    let port = format!("127.0.0.1:{address}");
    match on {
        On::Tcp => TcpStream::connect(port).is_ok(),
        On::Unix => Path::new(address).exists() && UnixStream::connect(address).is_ok(),
        On::Udp => (|| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            socket.connect(port)?;
            socket.send(b"x")?;
            socket.recv(&mut [0; 8])
        })()
        .is_ok_and(|received| received == 1),
    }
}

/// Returns a new port for each server, so that no old connection uses it.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 15_000) as u16;
    // Below the range of ephemeral ports.
    10_000 + (first - 10_000 + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000
}
