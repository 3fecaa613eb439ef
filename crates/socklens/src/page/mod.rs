//! The page: one file that plays a recording, or a lesson that runs.

use std::fs::File;
use std::io::{self, Read};

use crate::event::Event;
use crate::record::{Head, Object, json, meta};
use crate::scenario::line::Statement;
use crate::scenario::{Line, Scenario};

const PAGE: &str = include_str!("../../page/page.html");
const STYLE: &str = include_str!("../../page/style.css");
/// The parts of the script, in their order.
const SCRIPT: [&str; 9] = [
    include_str!("../../page/words.js"),
    include_str!("../../page/model.js"),
    include_str!("../../page/dom.js"),
    include_str!("../../page/ladder.js"),
    include_str!("../../page/panes.js"),
    include_str!("../../page/diagram.js"),
    include_str!("../../page/live.js"),
    include_str!("../../page/export.js"),
    include_str!("../../page/main.js"),
];

/// Random bytes as hexadecimal digits.
pub(crate) fn random(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A page and its content security policy.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) text: String,
    pub(crate) policy: String,
}

/// Escapes JSON so that it can stand in a script element: `</script>` and `<!--` would end it or
/// change how it is read, and U+2028 and U+2029 are line ends in a script. All of them occur only
/// in the texts of JSON, where an escape means the same.
fn within_script(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            c => text.push(c),
        }
    }
    text
}

fn within_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Builds the page around `boot`, which says what it shows, and a recording. `connects` is where
/// it may send requests.
pub(crate) fn page(title: &str, boot: &str, recording: &str, connects: &str) -> io::Result<Page> {
    let nonce = random(16)?;
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; \
         connect-src {connects}; base-uri 'none'; form-action 'none'"
    );
    let script = SCRIPT.concat();
    let (boot, recording) = (within_script(boot), within_script(recording));
    let title = within_html(title);
    // One pass, so that a text that looks like a placeholder is not replaced.
    let mut text = String::with_capacity(PAGE.len() + STYLE.len() + script.len() + recording.len());
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or(("", after));
        text.push_str(before);
        text.push_str(match name {
            "title" => &title,
            "nonce" => &nonce,
            "policy" => &policy,
            "style" => STYLE,
            "script" => &script,
            "boot" => &boot,
            "recording" => &recording,
            _ => "",
        });
        rest = after;
    }
    text.push_str(rest);
    Ok(Page { text, policy })
}

/// Builds the page that plays a recording, without a server. `programs` are the extensions of
/// languages with the calls in them.
pub(crate) fn replay(
    name: &str,
    recording: &str,
    programs: &[(&'static str, String)],
) -> io::Result<String> {
    let mut boot = Object::new("boot");
    boot.text("mode", "replay");
    boot.text("name", name);
    let programs: Vec<_> = programs
        .iter()
        .map(|(extension, text)| {
            let mut program = Object::new(extension);
            program.text("text", text);
            program.end()
        })
        .collect();
    boot.list("programs", &programs);
    page(&format!("{name} - socklens"), &boot.end(), recording, "'none'").map(|page| page.text)
}

/// A recording with the text of its scenario, as the page reads it.
pub(crate) fn recording(scenario: &Scenario, head: &Head, events: &[Event]) -> String {
    let mut text = format!("{}\n{}\n", meta(head), source(scenario));
    for event in events {
        text += &json(event);
        text.push('\n');
    }
    text
}

fn kind(line: &Line) -> &'static str {
    match &line.statement {
        None => "comment",
        Some(Statement::NeedsWire | Statement::NeedsLinux(..) | Statement::Host) => "needs",
        Some(Statement::Call { .. }) => "call",
        Some(Statement::Join { .. }) => "join",
        Some(Statement::Expect(_)) => "expect",
        Some(Statement::Wire(_)) => "wire",
        Some(Statement::Wait(_)) => "wait",
        Some(Statement::Run { .. }) => "run",
        Some(Statement::Sysctl { .. } | Statement::LimitDescriptors(_)) => "set",
    }
}

/// The lines of a scenario as an object of a recording. Readers that do not know it skip it.
pub(crate) fn source(scenario: &Scenario) -> String {
    let lines: Vec<String> = scenario
        .lines
        .iter()
        .map(|line| {
            let mut object = Object::new(kind(line));
            object.number("n", line.number);
            object.text("text", &line.text);
            object.optional("why", line.comment.as_deref());
            object.end()
        })
        .collect();
    let mut object = Object::new("source");
    object.text("name", scenario.name());
    object.text("title", scenario.title());
    object.list("lines", &lines);
    object.end()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_recording_cannot_end_its_script_element() {
        let text = "# </script><script>alert(1)</script> <!-- \u{2028} {{nonce}}\nhost A # & more";
        let scenario = Scenario::parse("</title>{{boot}}", text).unwrap();
        let head = Head::new("x", "veth", SystemTime::now());
        let recording = recording(&scenario, &head, &[]);
        let page = replay(scenario.name(), &recording, &[]).unwrap();
        let (_, tail) = page.split_once("id=\"recording\">").unwrap();
        let (embedded, _) = tail.split_once("</script>").unwrap();
        assert!(embedded.contains("\\u003c/script\\u003e\\u003cscript\\u003ealert(1)"), "{embedded}");
        assert!(embedded.contains("\\u2028 {{nonce}}"), "{embedded}");
        assert!(!embedded.contains(['<', '>', '&', '\u{2028}']), "{embedded}");
        assert!(page.contains("<title>&lt;/title&gt;{{boot}} - socklens</title>"));
        assert_eq!(embedded.lines().filter(|line| line.starts_with("{\"k\":")).count(), 2);
    }

    #[test]
    fn two_pages_have_different_nonces() {
        let nonce = |page: &str| {
            let (_, tail) = page.split_once("script-src 'nonce-").unwrap();
            tail.split_once('\'').unwrap().0.to_owned()
        };
        let (one, two) = (replay("x", "", &[]).unwrap(), replay("x", "", &[]).unwrap());
        assert_eq!(nonce(&one).len(), 32);
        assert_ne!(nonce(&one), nonce(&two));
    }
}
