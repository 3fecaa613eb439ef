//! Describes the machine and the compilers.

use std::fs;
use std::process::Command;
use std::thread;

pub(crate) fn describe() -> String {
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let mut lines = vec![
        format!("- CPU: {cpus} × {}", first_of("/proc/cpuinfo", "model name").unwrap_or("unknown".into())),
        format!("- memory: {}", first_of("/proc/meminfo", "MemTotal").unwrap_or("unknown".into())),
        format!("- kernel: {}", first_line("uname", &["-sr"])),
        format!("- system: {}", system()),
    ];
    for (name, words) in [
        ("rustc", ["--version"].as_slice()),
        ("gcc", &["--version"]),
        ("go", &["version"]),
        ("python3", &["--version"]),
    ] {
        lines.push(format!("- {name}: {}", first_line(name, words)));
    }
    lines.join("\n") + "\n"
}

fn first_of(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("unknown".into(), |name| name.trim_matches('"').to_owned())
}

/// Returns the first line that a program prints.
fn first_line(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    let text =
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("not installed").to_owned()
}
