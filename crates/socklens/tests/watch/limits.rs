//! Programs that start too much, that replace themselves, or that run on a system that is too old.

use super::*;

/// Number of processes whose command line contains a text.
fn processes_with(text: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok());
    let commands = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    commands.filter(|command| String::from_utf8_lossy(command).contains(text)).count()
}

/// Each process starts others, and so fast that some start while the programs are killed.
#[test]
fn programs_that_start_too_many_processes_or_threads_are_killed() {
    let Some(actor) = actor() else { return };
    for kind in ["process_bomb", "thread_bomb"] {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().to_str().unwrap();
        let ran = watch(&[
            "--a",
            &format!("{actor} {kind} {mark}"),
            "--b",
            // A starts once it listens.
            &format!("{actor} fork_server 1 {mark}"),
        ]);
        assert_eq!(ran.status, Some(1), "{}{}", ran.stdout, ran.stderr);
        let reason = "the programs have too many threads, and the programs were killed";
        assert_eq!(ran.stdout.matches(reason).count(), 1, "{}", ran.stdout);
        let end = Instant::now() + LIMIT;
        while processes_with(mark) > 0 {
            assert!(Instant::now() < end, "{} processes still run", processes_with(mark));
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// In a process that is killed nothing else of the system is short of memory meanwhile.
#[test]
fn programs_that_use_too_much_memory_are_killed() {
    let Some(actor) = actor() else { return };
    let ran = watch(&["--a", &format!("{actor} memory 200 0"), "--max-memory", "150M"]);
    assert_eq!(ran.status, Some(1), "{}{}", ran.stdout, ran.stderr);
    let reason = "the programs have more than 150 MiB of memory, and the programs were killed";
    assert_eq!(ran.stdout.matches(reason).count(), 1, "{}", ran.stdout);
}

/// Four processes have the pages of the first one.
#[test]
fn memory_that_processes_share_is_counted_once() {
    let Some(actor) = actor() else { return };
    let ran = watch(&["--a", &format!("{actor} memory 100 3"), "--max-memory", "150M"]);
    assert!(ran.stdout.contains("A printed: memory: written"), "{}", ran.stdout);
    assert!(ran.stdout.contains("was ended by SIGTERM"), "{}", ran.stdout);
}

#[test]
fn a_program_can_open_only_so_many_descriptors() {
    let Some(actor) = actor() else { return };
    let program = format!("{actor} descriptors");
    let ran = watch(&["--a", &program, "--max-descriptors", "50"]);
    assert!(ran.stdout.contains("A printed: descriptors: 50\n"), "{}", ran.stdout);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    // The limit of the system is lower, or the one of the tool.
    let ran = watch(&["--a", &program]);
    let printed = ran.stdout.split("descriptors: ").nth(1).and_then(|rest| rest.lines().next());
    let count = printed.and_then(|count| count.parse::<u64>().ok());
    assert!(count.is_some_and(|count| (8..=4096).contains(&count)), "{}", ran.stdout);
}

/// Programs of Go and with a sanitizer reserve terabytes of addresses.
#[test]
fn reserved_addresses_are_no_memory() {
    if !can_watch() || !has("cc") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("reserve.c"), folder.path().join("reserve"));
    let text = "#define _GNU_SOURCE
#include <sys/mman.h>
int main(void) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    return mmap(0, 1ul << 40, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED;
}
";
    fs::write(&source, text).unwrap();
    assert!(Command::new("cc").arg("-o").arg(&program).arg(&source).status().unwrap().success());
    let program = program.to_str().unwrap();
    // A system can refuse it by itself.
    if !Command::new(program).status().unwrap().success() {
        return not_run("a program cannot reserve a terabyte");
    }
    let ran = watch(&["--a", program, "--max-memory", "150M"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
}

/// The first thread ends in its call, and the one that calls execve(2) gets its identity.
#[test]
fn a_program_that_another_thread_executes_is_followed() {
    let Some(actor) = actor() else { return };
    let (server, client) = (format!("{actor} exec_from_thread"), format!("{actor} client executed"));
    for (hold, state) in [(&[][..], "= blocks"), (&["--hold", "B.recv"], "held")] {
        let mut running = Running::start(&[&["--b", &server, "--a", &client], hold].concat());
        let process = process_in(&running.wait_for(&["B: process ", " is ", "exec_from_thread"]));
        running.wait_for(&["B1.recv(10)", state]);
        assert!(Command::new("kill").args(["-USR1", &process]).status().unwrap().success());
        running.wait_for(&["B1.recv(10)", "= the thread has ended"]);
        let executed = format!("B: process {process} is {actor} fork_server 1");
        running.wait_for(&[&executed]);
        if !hold.is_empty() {
            running.wait_for(&[".recv(1000)", "held"]);
            running.command("run");
        }
        running.wait_for(&[".recv(1000)", "= b\"executed\""]);
        let (status, text) = running.end();
        assert_eq!(status, Some(0), "{text}");
        for part in ["B printed: fork_server: fine", "A printed: client: fine"] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }
}

/// A file is mounted over the one in which the kernel says its version.
#[test]
fn a_system_before_linux_5_6_is_refused_with_the_reason() {
    if !can_watch() || !has("unshare") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("osrelease");
    let script = "mount --bind \"$1\" /proc/sys/kernel/osrelease && exec timeout 90 \"$2\" watch --a true";
    for (release, status, text) in [
        (
            "5.5.19-generic",
            NOT_RUN,
            "programs are watched on Linux 5.6 and later, and this is 5.5.19-generic",
        ),
        ("4.19.0", NOT_RUN, "programs are watched on Linux 5.6 and later, and this is 4.19.0"),
        ("5.6.0", 0, "true has ended with exit status 0"),
        ("10.0-rc1", 0, "true has ended with exit status 0"),
    ] {
        fs::write(&file, format!("{release}\n")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]);
        command.arg(&file).arg(env!("CARGO_BIN_EXE_socklens")).stdin(Stdio::null());
        let output = command.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{release}: {stdout}{stderr}");
        assert!(stdout.contains(text), "{release}: {stdout}{stderr}");
    }
}
