//! The promise: where a way to make the hosts is forbidden the next one is used, with the reason, and
//! an unprivileged user can run every scenario.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

const NOT_RUN: i32 = 77;
const EPERM: u32 = 1;

const AF_PACKET: u64 = 17;
const AF_NETLINK: u64 = 16;

/// Numbers of the system calls socket(2) and unshare(2).
fn numbers() -> (i64, i64) {
    if cfg!(target_arch = "x86_64") { (41, 272) } else { (198, 97) }
}

struct Ran {
    status: Option<i32>,
    /// Both outputs.
    text: String,
}

fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|part| String::from_utf8(part).unwrap()).concat();
    Ran { status: output.status.code(), text }
}

fn socklens(arguments: &[&str]) -> Ran {
    run(Command::new("timeout").arg("60").arg(env!("CARGO_BIN_EXE_socklens")).args(arguments))
}

/// Runs `calls` in a thread whose programs cannot make these calls: they fail with EPERM.
fn refusing(calls: Vec<(i64, Vec<SeccompRule>)>, run: impl FnOnce() + Send + 'static) {
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let rules: BTreeMap<_, _> = calls.into_iter().collect();
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(EPERM), arch).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    let thread = thread::spawn(move || {
        seccompiler::apply_filter(&filter).unwrap();
        run();
    });
    thread.join().unwrap();
}

/// socket(2) with this family.
fn socket_of(family: u64) -> (i64, Vec<SeccompRule>) {
    let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family).unwrap();
    (numbers().0, vec![SeccompRule::new(vec![is]).unwrap()])
}

fn assert_has(ran: &Ran, status: i32, parts: &[&str]) {
    assert_eq!(ran.status, Some(status), "{}", ran.text);
    for part in parts {
        assert!(ran.text.contains(part), "{part:?} is missing in:\n{}", ran.text);
    }
}

/// Whether this system has a wire, and the reason if it has none.
fn has_wire() -> bool {
    let ran = socklens(&["run", "hello", "--quiet"]);
    if ran.status == Some(NOT_RUN) {
        assert!(std::env::var_os("SOCK_REQUIRE_LENS").is_none(), "{}", ran.text);
        eprintln!("NOT RUN: {}", ran.text);
        return false;
    }
    true
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Starts the command that follows as an unprivileged user, also if this test is root.
fn as_unprivileged_user() -> Command {
    let mut command = Command::new("timeout");
    command.arg("60").current_dir("/").env("TMPDIR", "/tmp");
    if is_root() {
        command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    }
    command
}

/// A copy of the program that every user can execute.
struct Copied {
    folder: tempfile::TempDir,
}

impl Copied {
    fn new() -> Copied {
        // TMPDIR can be a folder that other users cannot enter.
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copied = Copied { folder };
        fs::copy(env!("CARGO_BIN_EXE_socklens"), copied.program()).unwrap();
        fs::set_permissions(copied.program(), fs::Permissions::from_mode(0o755)).unwrap();
        copied
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("socklens")
    }

    /// As an unprivileged user, also if this test is root.
    fn unprivileged(&self, arguments: &[&str]) -> Ran {
        run(as_unprivileged_user().arg(self.program()).args(arguments))
    }
}

#[test]
fn an_unprivileged_user_can_run_every_scenario() {
    let copied = Copied::new();
    let list = copied.unprivileged(&["list"]);
    let names: Vec<_> = list.text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(names.len() >= 38, "{names:?}");
    let tiers: &[&str] = if has_wire() { &["veth", "loopback"] } else { &["loopback"] };
    for tier in tiers {
        for names in names.chunks(8) {
            thread::scope(|scope| {
                for name in names {
                    let copied = &copied;
                    scope.spawn(move || {
                        let ran = copied.unprivileged(&["run", name, "--tier", tier]);
                        let needs_wire = *tier == "loopback" && ran.text.contains("NOT RUN: it ");
                        let expected = if needs_wire { NOT_RUN } else { 0 };
                        assert_eq!(ran.status, Some(expected), "{name} on {tier}:\n{}", ran.text);
                    });
                }
            });
        }
    }
}

#[test]
fn without_packet_sockets_tun_is_used_or_both_reasons_are_printed() {
    if !has_wire() {
        return;
    }
    let copied = Copied::new();
    refusing(vec![socket_of(AF_PACKET)], move || {
        let reason = "note: no veth: AF_PACKET: ";
        if fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok() {
            let ran = socklens(&["run", "half_close"]);
            assert_has(&ran, 0, &["wire tun\n", reason]);
            assert_has(&socklens(&["run", "handshake"]), 0, &["wire tun\n", "SYN+ACK"]);
        }
        // Systems differ in the mode of the device.
        let opens = as_unprivileged_user().args(["sh", "-c", "exec 3<>/dev/net/tun"]).output().unwrap();
        let ran = copied.unprivileged(&["run", "half_close"]);
        if opens.status.success() {
            assert_has(&ran, 0, &["wire tun\n", reason]);
        } else {
            assert_has(&ran, 0, &["no wire\n", reason, "note: no tun: /dev/net/tun: "]);
            let ran = copied.unprivileged(&["run", "half_close", "--tier", "tun"]);
            assert_has(&ran, NOT_RUN, &["NOT RUN: no tun: /dev/net/tun: "]);
        }
    });
}

/// A system that permits user namespaces, of which none is left.
#[test]
fn without_user_namespaces_the_limit_is_named() {
    if !has_wire() {
        return;
    }
    let script = "echo 0 > /proc/sys/user/max_user_namespaces || exit 99
exec setpriv --bounding-set -all --inh-caps -all \"$0\" run half_close";
    let ran = run(Command::new("unshare")
        .args(["--user", "--map-root-user", "timeout", "60", "sh", "-c", script])
        .arg(env!("CARGO_BIN_EXE_socklens")));
    assert_has(
        &ran,
        0,
        &["no wire\n", "note: no veth: unshare(CLONE_NEWUSER): ", "user.max_user_namespaces is reached"],
    );
}

#[test]
fn without_network_namespaces_the_limit_is_named() {
    if !has_wire() {
        return;
    }
    let script = "echo 0 > /proc/sys/user/max_net_namespaces || exit 99
exec \"$0\" run half_close";
    let ran = run(Command::new("unshare")
        .args(["--user", "--map-root-user", "timeout", "60", "sh", "-c", script])
        .arg(env!("CARGO_BIN_EXE_socklens")));
    assert_has(&ran, 0, &["no wire\n", "unshare(CLONE_NEWNET): ", "user.max_net_namespaces is reached"]);
}

/// Also the tier loopback needs NETLINK_SOCK_DIAG: sockets are identified by their cookies, which
/// /proc/net does not have.
#[test]
fn without_netlink_the_program_says_what_it_needs() {
    refusing(vec![socket_of(AF_NETLINK)], || {
        let ran = socklens(&["run", "half_close"]);
        assert_has(
            &ran,
            NOT_RUN,
            &["half_close: NOT RUN: no veth: ", "; no tun: ", "; no loopback: NETLINK_SOCK_DIAG: "],
        );
    });
}

#[test]
fn without_any_socket_every_reason_is_printed() {
    refusing(vec![(numbers().0, vec![]), (numbers().1, vec![])], || {
        let ran = socklens(&["run", "half_close"]);
        assert_has(
            &ran,
            NOT_RUN,
            &["half_close: NOT RUN: no veth: unshare(CLONE_NEWUSER): ", "; no tun: ", "; no loopback: "],
        );
        assert!(!ran.text.contains("panicked"), "{}", ran.text);
    });
}

#[test]
fn packets_are_forwarded_on_one_processor_and_programs_run_on_all() {
    let folder = tempfile::tempdir().unwrap();
    // The shell is a child of the process with the thread of the wire.
    let script = folder.path().join("processors");
    let text = "for task in /proc/$PPID/task/*; do
  read name < $task/comm
  [ \"$name\" = wire ] && grep Cpus_allowed_list $task/status
done
grep Cpus_allowed_list /proc/self/status
";
    fs::write(&script, text).unwrap();
    let printed = folder.path().join("printed");
    let scenario = folder.path().join("test.scn");
    // The wire runs when the datagram has arrived.
    let text = format!(
        "needs wire
S = B.socket(AF_INET, SOCK_DGRAM)
S.bind((\"10.0.0.2\", 5353))
C = A.socket(AF_INET, SOCK_DGRAM)
C.sendto(b\"x\", (\"10.0.0.2\", 5353))
S.recv(1) -> b\"x\"
run B sh -c '. {} > {}' -> 0
",
        script.display(),
        printed.display()
    );
    fs::write(&scenario, text).unwrap();
    let ran = socklens(&["run", scenario.to_str().unwrap(), "--quiet"]);
    if ran.status == Some(NOT_RUN) {
        assert!(std::env::var_os("SOCK_REQUIRE_LENS").is_none(), "{}", ran.text);
        eprintln!("NOT RUN: {}", ran.text);
        return;
    }
    assert_eq!(ran.status, Some(0), "{}", ran.text);
    let printed = fs::read_to_string(&printed).unwrap();
    let lists: Vec<_> = printed.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    assert_eq!(lists.len(), 2, "{printed}");
    assert!(lists[0].parse::<u32>().is_ok(), "the wire: {printed}");
    assert_eq!(lists[1], own, "a program: {printed}");
}
