//! The costs of the server, read from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::ops::AddAssign;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Costs of a process and its descendants since their start.
#[derive(Clone, Copy, Default)]
pub(crate) struct Costs {
    pub(crate) cpu: Duration,
    /// Voluntary context switches.
    pub(crate) switches: u64,
    pub(crate) threads: u64,
}

impl AddAssign for Costs {
    fn add_assign(&mut self, other: Costs) {
        self.cpu += other.cpu;
        self.switches += other.switches;
        self.threads += other.threads;
    }
}

impl Costs {
    /// Sums the costs of a process and its descendants, including terminated ones.
    pub(crate) fn of(server: Option<i32>) -> Costs {
        let mut sum = Costs::default();
        for process in server.map(descendants).unwrap_or_default() {
            sum += of_process(process);
        }
        sum
    }
}

/// Memory of a process and its descendants, in bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    /// User memory; shared pages count proportionally (PSS).
    pub(crate) user: u64,
    pub(crate) page_tables: u64,
    /// Kernel stacks of the whole machine.
    pub(crate) kernel_stacks: u64,
    /// Slab memory of the whole machine, which includes both ends of each connection.
    pub(crate) slab: u64,
}

impl Memory {
    pub(crate) fn of(server: Option<i32>) -> Memory {
        let mut memory = Memory::default();
        for process in server.map(descendants).unwrap_or_default() {
            let file = |name| fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default();
            memory.user += kilobytes(&file("smaps_rollup"), "Pss:");
            memory.page_tables += kilobytes(&file("status"), "VmPTE:");
        }
        let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        memory.kernel_stacks = kilobytes(&machine, "KernelStack:");
        memory.slab = kilobytes(&machine, "Slab:");
        memory
    }
}

/// Returns the CPU time that this process has used.
pub(crate) fn own_cpu() -> Duration {
    clock(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// Returns the CPU time of the whole machine since its start, in ticks of 10 ms.
pub(crate) fn machine_cpu() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal: all except idle and iowait.
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|&column| ticks.get(column)).sum::<u64>();
    Duration::from_millis(busy * 10)
}

fn of_process(process: i32) -> Costs {
    let mut costs = Costs::default();
    if let Ok(clock_id) = clock_getcpuclockid(Pid::from_raw(process)) {
        costs.cpu = clock(clock_id);
    }
    // The time of terminated children is in the fields of their parent, in ticks.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    costs.cpu += Duration::from_millis((stat_field(&stat, 16) + stat_field(&stat, 17)) * 10);
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    for (number, task) in tasks.enumerate() {
        costs.threads += 1;
        // Reading ten thousand files would take too long.
        if number < 600 {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            costs.switches += value(&status, "voluntary_ctxt_switches:");
        }
    }
    costs
}

fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Ok(process) = entry.file_name().to_string_lossy().parse::<i32>() {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            children.entry(stat_field(&stat, 4) as i32).or_default().push(process);
        }
    }
    let mut all = vec![root];
    let mut next = 0;
    while let Some(process) = all.get(next) {
        all.extend(children.get(process).cloned().unwrap_or_default());
        next += 1;
    }
    all
}

/// Returns a field of `/proc/PID/stat`, numbered as in proc(5). The second field is a name
/// that may contain any character, so counting starts after it.
fn stat_field(stat: &str, field: usize) -> u64 {
    let behind_name = stat.rfind(')').map_or("", |at| &stat[at + 1..]);
    behind_name.split_whitespace().nth(field - 3).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn value(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn kilobytes(text: &str, key: &str) -> u64 {
    value(text, key) * 1024
}

fn clock(id: ClockId) -> Duration {
    clock_gettime(id).map(Duration::from).unwrap_or_default()
}
