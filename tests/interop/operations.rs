//! The files for systemd and Kubernetes in `docs/operations.md`, with the example that they start.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::program::{self, Directory, Language, Program};
use crate::service::ask;

fn page() -> String {
    fs::read_to_string(program::repository().join("docs/operations.md")).expect("operations.md")
}

/// Returns the text between two others.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("no {begin:?} in\n{text}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end:?} after {begin:?}")).0
}

fn is_required(tool: &str) {
    let required = std::env::var_os("SOCK_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "SOCK_REQUIRE_PEERS=1 is set, but {tool} is missing");
    program::print_uncaptured(&format!("{tool} is missing: A FILE OF THE PAGE operations IS NOT CHECKED"));
}

/// How long the example lets requests finish.
fn drain_limit() -> u64 {
    let source = fs::read_to_string(program::repository().join("examples/service.rs")).expect("service.rs");
    between(&source, "drain_on_signals(Duration::from_secs(", ")").parse().expect("seconds")
}

/// Returns what `systemd-analyze verify` writes about the units, `None` if it is not installed.
fn verify(directory: &Directory, units: &[(&str, String)]) -> Option<String> {
    for (name, unit) in units {
        fs::write(directory.join(name), unit).expect("write");
    }
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]).args(units.iter().map(|(name, _)| directory.join(name)));
    let output = command.output().ok()?;
    // It exits with 0 also if it has ignored something.
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_units_for_systemd_are_valid() {
    let page = page();
    let unit = |name: &str| between(between(&page, &format!("### {name}\n"), "\n#"), "```text\n", "```");
    let (socket, service) = (unit("app.socket").to_owned(), unit("app.service").to_owned());
    let command = between(&service, "ExecStart=", "\n").to_owned();
    let words: Vec<_> = command.split(' ').collect();
    assert!(socket.contains(&format!("ListenStream=0.0.0.0:{}\n", words[2])), "{socket}");
    let lame_duck: u64 = words[4].parse().expect("LAME_DUCK");
    let stop: u64 = between(&service, "TimeoutStopSec=", "\n").parse().expect("seconds");
    assert!(stop > lame_duck + drain_limit(), "systemd kills the service in its drain");

    let directory = Directory::new("units");
    let path = program::example("service");
    let service = service.replace(words[0], path.to_str().expect("UTF-8"));
    let Some(written) =
        verify(&directory, &[("app.socket", socket.clone()), ("app.service", service.clone())])
    else {
        return is_required("systemd-analyze");
    };
    assert_eq!(written, "");
    // A mistake would be noticed.
    let wrong = service.replace("WatchdogSec=", "WatchdogSecs=");
    let written =
        verify(&directory, &[("app.socket", socket), ("app.service", wrong)]).expect("it is there");
    assert!(written.contains("WatchdogSecs"), "{written}");
}

/// Prints each value of a document with its path.
const FLATTEN: &str = "
import sys, yaml
def show(path, value):
    if isinstance(value, (dict, list)):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            show(f'{path}.{key}', one)
    else:
        print(f'{path[1:]}={value}')
show('', yaml.safe_load(sys.stdin))
";

/// Returns the values of a YAML document by their paths, `None` if Python has no parser.
fn parse_yaml(text: &str) -> Option<BTreeMap<String, String>> {
    let has_parser = |python: &&str| {
        let import = Command::new(python).args(["-c", "import yaml"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    };
    // A package of the system is for its own interpreter, which may not be the first in the path.
    let python = ["python3", "/usr/bin/python3"].into_iter().find(has_parser)?;
    let mut command = Command::new(python);
    command.args(["-c", FLATTEN]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = command.spawn().expect("python3");
    python.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("write");
    let output = python.wait_with_output().expect("wait");
    assert!(output.status.success(), "invalid YAML:\n{text}");
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let pairs = lines.lines().map(|line| line.split_once('=').expect("a path and a value"));
    Some(pairs.map(|(path, value)| (path.to_owned(), value.to_owned())).collect())
}

#[test]
fn the_deployment_for_kubernetes_fits_the_example() {
    let page = page();
    let section = between(&page, "## Kubernetes\n", "\n## ");
    let Some(deployment) = parse_yaml(between(section, "```yaml\n", "```")) else {
        return is_required("Python's yaml");
    };
    let hook = between(section, "  ```yaml\n", "  ```");
    let hook = parse_yaml(hook).expect("the parser is there");
    let pod = |path: &str| {
        let path = format!("spec.template.{path}");
        deployment.get(&path).unwrap_or_else(|| panic!("no {path} in {deployment:#?}")).as_str()
    };
    let container = |path: &str| pod(&format!("spec.containers.0.{path}"));
    let seconds = |text: &str| text.parse::<u64>().expect("seconds");

    let (port, model, lame_duck) = (container("args.1"), container("args.2"), container("args.3"));
    let sleep = seconds(&hook["lifecycle.preStop.exec.command.1"]);
    let grace = seconds(pod("spec.terminationGracePeriodSeconds"));
    assert!(grace >= sleep + seconds(lame_duck) + drain_limit(), "the pod is killed in its drain");
    assert_eq!(container("ports.0.containerPort"), port);
    assert_eq!(pod("metadata.annotations.prometheus.io/port"), port);
    let paths = ["startupProbe", "readinessProbe", "livenessProbe"].map(|probe| {
        assert_eq!(container(&format!("{probe}.httpGet.port")), container("ports.0.name"));
        container(&format!("{probe}.httpGet.path"))
    });

    let arguments = ["127.0.0.1", "0", model, "600"];
    let mut server = Program::start(Language::Rust, "service", &arguments);
    let address = server.address();
    server.expect(": Ready\n");
    for path in paths.iter().chain(&[pod("metadata.annotations.prometheus.io/path")]) {
        assert_eq!(ask(&address, path).0, 200, "{path}");
    }
    server.signal("TERM");
    server.expect(": LameDuck\n");
    assert_eq!(paths.map(|path| ask(&address, path).0), [200, 503, 200]);
    server.signal("INT");
    server.finish_with(0);
}
