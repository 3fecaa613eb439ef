//! Runs servers under strace(1), under callgrind, and without either.

use std::error::Error;
use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::cases::{Case, Figures, Program};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Time limit for the start and the end of a server.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Runner {
    /// The folder of `ours` and `load`.
    pub(crate) release: PathBuf,
    pub(crate) scratch: PathBuf,
    /// The CPU of all programs.
    pub(crate) cpu: usize,
}

#[derive(Clone, Copy)]
enum Under {
    Nothing,
    Strace,
    Callgrind,
}

impl Under {
    /// Returns the number of requests of the shorter and of the longer run.
    fn requests(self) -> (usize, usize) {
        match self {
            Under::Nothing | Under::Strace => (640, 1920),
            // Enough requests that one more started thread is negligible.
            Under::Callgrind => (3200, 12_800),
        }
    }

    fn runs(self) -> usize {
        match self {
            Under::Nothing => 5,
            // Of many threads at one listener some wake without a client, more so on a busy
            // machine.
            Under::Strace => 3,
            Under::Callgrind => 2,
        }
    }
}

impl Runner {
    pub(crate) fn models(&self) -> Outcome<Vec<String>> {
        let output = Command::new(self.release.join("ours")).arg("--models").output()?;
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }

    pub(crate) fn count(&self, case: &Case) -> Outcome<Figures> {
        Ok(Figures {
            calls: self.difference(case, Under::Strace)?,
            waits: self.difference(case, Under::Nothing)?,
            instructions: match case.instructions {
                true => Some(self.difference(case, Under::Callgrind)?),
                false => None,
            },
        })
    }

    /// Returns the difference between the longer and the shorter run per request. Each run is
    /// repeated and the minimum used, because other processes can only add to it.
    fn difference(&self, case: &Case, under: Under) -> Outcome<f64> {
        let least = |requests| -> Outcome<f64> {
            let runs = (0..under.runs()).map(|_| self.run(case, under, requests));
            let runs = runs.collect::<Outcome<Vec<f64>>>();
            let runs = runs.map_err(|error| format!("{}: {error}", case.name()))?;
            Ok(runs.into_iter().fold(f64::INFINITY, f64::min))
        };
        let (few, many) = under.requests();
        Ok((least(many)? - least(few)?) / (many - few) as f64)
    }

    /// Lets a server serve a number of requests and returns the total costs.
    fn run(&self, case: &Case, under: Under, requests: usize) -> Outcome<f64> {
        let address = self.address(case);
        let output = self.scratch.join("output");
        let _ = fs::remove_dir_all(&output);
        fs::create_dir_all(&output)?;
        let mut running = Running(self.server(case, under, &address, &output).spawn()?);
        // The load over TLS waits itself.
        if case.program == Program::Ours {
            wait_until_ready(case, &address, &mut running.0)?;
        }
        let load = self.load(case, &address, requests).output()?;
        if !load.status.success() {
            return Err(String::from_utf8_lossy(&load.stderr).into_owned().into());
        }
        // Work that follows the last response belongs to its request.
        thread::sleep(Duration::from_millis(100));
        match under {
            Under::Nothing => {
                let living = waits_of(&descendants(running.0.id() as i32)[1..]);
                let before = getrusage(UsageWho::RUSAGE_CHILDREN)?.voluntary_context_switches();
                running.end()?;
                let after = getrusage(UsageWho::RUSAGE_CHILDREN)?.voluntary_context_switches();
                Ok((after - before) as f64 + living as f64)
            }
            Under::Strace => {
                running.end()?;
                calls_in(&fs::read_to_string(output.join("strace"))?)
            }
            Under::Callgrind => {
                let server = running.0.id();
                running.end()?;
                instructions_in(&fs::read_to_string(output.join(format!("callgrind.{server}")))?)
            }
        }
    }

    fn load(&self, case: &Case, address: &str, requests: usize) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", &self.cpu.to_string()]);
        let (connections, requests) = (case.connections.to_string(), requests.to_string());
        match case.program {
            Program::Ours => {
                let target =
                    if address.starts_with('/') { address } else { &format!("127.0.0.1:{address}") };
                command.arg(self.release.join("load"));
                command.args(["rounds", target, "--kind", case.kind]);
                command.args(["--connections", &connections, "--requests", &requests]);
            }
            Program::Https => {
                command.arg(self.release.join("https")).arg("rounds").arg(&self.scratch);
                command.args([address, &connections, &requests]);
            }
        }
        command
    }

    /// Runs the server with SCHED_BATCH, so that it does not preempt the load generator and
    /// finds a complete round.
    fn server(&self, case: &Case, under: Under, address: &str, output: &std::path::Path) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", &self.cpu.to_string(), "chrt", "--batch", "0"]);
        match under {
            Under::Nothing => {}
            Under::Strace => {
                command.args(["strace", "-f", "-qq", "-c", "-U", "calls", "-o"]).arg(output.join("strace"));
            }
            Under::Callgrind => {
                let file = output.join("callgrind.%p");
                command.args(["valgrind", "-q", "--tool=callgrind", "--fair-sched=yes"]);
                command.arg(format!("--callgrind-out-file={}", file.display()));
            }
        }
        match case.program {
            Program::Ours => {
                command.arg(self.release.join("ours")).arg(case.model).arg(address).args(case.words);
            }
            Program::Https => {
                command.arg(self.release.join("https")).arg("serve").arg(&self.scratch).arg(address);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        command
    }

    fn address(&self, case: &Case) -> String {
        if case.model.ends_with("unix") {
            let path = self.scratch.join("socket");
            let _ = fs::remove_file(&path);
            return path.display().to_string();
        }
        // Each run uses a new port, below the range of ephemeral ports.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let offset = (std::process::id() as u16 % 10_000) + NEXT.fetch_add(1, Ordering::Relaxed);
        (12_000 + offset % 20_000).to_string()
    }
}

/// A running server. Dropping it kills the server and its children.
struct Running(Child);

impl Running {
    /// Stops the server, and waits until strace or callgrind has written its output.
    fn end(&mut self) -> Outcome<()> {
        let parent = self.0.id() as i32;
        let all = descendants(parent);
        // strace does not forward signals. It exits with the processes it traces.
        let watched = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
        let ended = if watched.trim() == "strace" { &all[1..] } else { &all[..] };
        for &process in ended {
            // It may have exited already.
            let _ = kill(Pid::from_raw(process), Signal::SIGTERM);
        }
        let begin = Instant::now();
        while self.0.try_wait()?.is_none() {
            if begin.elapsed() > PATIENCE {
                return Err("it does not end".into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Returns a process and its descendants.
fn descendants(process: i32) -> Vec<i32> {
    let mut all = vec![process];
    let mut next = 0;
    while let Some(&process) = all.get(next) {
        let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
        all.extend(
            children.unwrap_or_default().split_whitespace().filter_map(|word| word.parse::<i32>().ok()),
        );
        next += 1;
    }
    all
}

/// Returns the waits of running processes.
fn waits_of(processes: &[i32]) -> u64 {
    let mut sum = 0;
    for process in processes {
        for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0);
        }
    }
    sum
}

/// The last line of the summary is `NUMBER total`.
fn calls_in(summary: &str) -> Outcome<f64> {
    let total = summary.lines().rev().find(|line| line.trim_end().ends_with("total"));
    let number = total.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("strace's summary has no total: {summary}").into())
}

fn instructions_in(profile: &str) -> Outcome<f64> {
    let totals = profile.lines().find_map(|line| line.strip_prefix("totals:"));
    let number = totals.and_then(|line| line.trim().parse().ok());
    number.ok_or_else(|| "callgrind's profile has no totals".into())
}

fn wait_until_ready(case: &Case, address: &str, server: &mut Child) -> Outcome<()> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if let Some(status) = server.try_wait()? {
            return Err(format!("the server exited: {status}").into());
        }
        let port = format!("127.0.0.1:{address}");
        let ready = if case.kind == "udp" {
            UdpSocket::bind("127.0.0.1:0")
                .and_then(|socket| {
                    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
                    socket.connect(port)?;
                    socket.send(b"x")?;
                    socket.recv(&mut [0; 8])
                })
                .is_ok()
        } else if address.starts_with('/') {
            UnixStream::connect(address).is_ok()
        } else {
            TcpStream::connect(port).is_ok()
        };
        if ready {
            thread::sleep(Duration::from_millis(50));
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Err("it does not answer".into())
}

/// Returns the first CPU that this process may use.
pub(crate) fn first_cpu() -> Outcome<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let first = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    first.ok_or_else(|| "no CPU to run on".into())
}
