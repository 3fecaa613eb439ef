//! The same tests as another user, and in a network namespace of their own.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The name of the one test that a child runs, or [`ALL`].
const CHILD: &str = "SOCKDIAG_TEST_CHILD";
const ALL: &str = "all";

/// Whether this process was started to run this test, or all.
pub(crate) fn is_child_for(test: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|name| name == test)
}

/// Runs one test of this program in a process of its own.
pub(crate) fn in_child(test: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args([test, "--exact", "--nocapture"]).env(CHILD, test).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{test}: {text}");
}

/// Runs all tests but those that start others, and returns what they printed.
fn rerun(mut command: Command) -> String {
    command.args(["--skip", "users::", "--nocapture"]).env(CHILD, ALL);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{text}");
    for line in text.lines().filter(|line| line.contains("NOT RUN")) {
        eprintln!("{line}");
    }
    text
}

/// nobody, who has no privilege.
const NOBODY: u32 = 65_534;

#[test]
fn everything_works_as_an_unprivileged_user() {
    if is_child_for(ALL) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        // Then all the other tests have shown it.
        return;
    }
    // The user `nobody` may have no access to the build folder, nor to TMPDIR.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let copy = folder.path().join("kernel");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    for path in [folder.path(), &copy] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(&copy);
    command.uid(NOBODY).gid(NOBODY).current_dir(folder.path()).env("TMPDIR", "/tmp");
    let text = rerun(command);
    assert!(text.contains("test result: ok"), "{text}");
}

/// There `destroy` needs no root.
#[test]
fn everything_works_in_a_network_namespace_of_its_own() {
    if is_child_for(ALL) {
        return;
    }
    let unshare = ["-rn", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"];
    match Command::new("unshare").args(&unshare[..1]).arg("true").output() {
        Ok(output) if output.status.success() => {}
        refused => {
            eprintln!("NOT RUN: no network namespace can be made: {refused:?}");
            return;
        }
    }
    let mut command = Command::new("unshare");
    command.args(unshare).arg(std::env::current_exe().unwrap());
    let text = rerun(command);
    assert!(text.contains("test result: ok"), "{text}");
}
