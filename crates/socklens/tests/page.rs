//! The promises of the page: a recording is one file that loads nothing, whatever the scenario
//! contains.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;

/// A scenario that runs on every tier, with texts that would end a script element.
const HOSTILE: &str = "# </script><img src=x onerror=alert(1)> <!-- \u{2028} \u{2029} &amp;
S = A.socket(AF_INET, SOCK_STREAM)
expect S.state == CLOSED            # </script><script>alert(2)</script>
S.close()
";

/// What `socklens run` writes with this option.
fn record(text: &str, option: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (scenario, file) = (folder.path().join("hostile.scn"), folder.path().join("recording"));
    fs::write(&scenario, text).unwrap();
    let output = Command::new("timeout")
        .args(["60", env!("CARGO_BIN_EXE_socklens"), "run", "--quiet", option])
        .args([&file, &scenario])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    fs::read_to_string(file).unwrap()
}

fn replay(text: &str) -> String {
    record(text, "--html")
}

/// The text of the script element with this identity.
fn element<'a>(page: &'a str, id: &str) -> &'a str {
    let (_, tail) = page.split_once(&format!("id=\"{id}\">")).unwrap();
    tail.split_once("</script>").unwrap().0
}

#[test]
fn a_replay_is_one_file_that_loads_nothing() {
    let page = replay("S = A.socket(AF_INET, SOCK_STREAM)\nS.close()\n");
    for word in ["src=", "@import", "url(\"http", "url(http", "<link rel=\"stylesheet", "import("] {
        assert!(!page.contains(word), "{word}");
    }
    let policy = "default-src 'none'; script-src 'nonce-";
    assert!(page.contains(policy) && page.contains("connect-src 'none'"), "a policy that loads nothing");
    assert!(element(&page, "boot").contains("\"mode\":\"replay\""));
}

#[test]
fn a_replay_has_the_recording_and_the_lines_of_the_scenario() {
    let page = replay("S = A.socket(AF_INET, SOCK_STREAM)\nS.close() # why not\n");
    let lines: Vec<_> = element(&page, "recording").lines().filter(|line| !line.is_empty()).collect();
    assert!(lines[0].starts_with("{\"k\":\"meta\",\"v\":1,"), "{}", lines[0]);
    assert!(lines[1].starts_with("{\"k\":\"source\",\"name\":\"hostile.scn\""), "{}", lines[1]);
    assert!(lines[1].contains("\"why\":\"why not\""), "{}", lines[1]);
    for kind in ["line", "call", "name", "ret", "done"] {
        let begin = format!("{{\"k\":\"{kind}\"");
        assert!(lines.iter().any(|line| line.starts_with(&begin)), "no {kind} in {lines:?}");
    }
}

#[test]
fn texts_of_a_scenario_cannot_end_a_script_element() {
    let page = replay(HOSTILE);
    let embedded = element(&page, "recording");
    assert!(embedded.contains("\\u003c/script\\u003e\\u003cscript\\u003ealert(2)"), "{embedded}");
    assert!(embedded.contains("\\u2028 \\u2029 \\u0026amp;"), "{embedded}");
    assert!(!embedded.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{embedded}");
    assert_eq!(page.matches("</script>").count(), 3);
}

#[test]
fn hints_of_the_library_are_recorded() {
    let text =
        "X, Y = A.socketpair(AF_UNIX, SOCK_DGRAM)\nX.send(b\"0123456789\")\nY.recv(4) -> b\"0123\"\n";
    let page = replay(text);
    for recording in [element(&page, "recording"), &record(text, "--jsonl")] {
        let hints: Vec<_> = recording.lines().filter(|line| line.contains("\"k\":\"hint\"")).collect();
        assert_eq!(hints.len(), 1, "{recording}");
        assert!(hints[0].contains("returned 4 bytes of a datagram"), "{hints:?}");
    }
}
