//! Lessons in a browser.
//!
//! The server is a [`ThreadingTCPServer`] on the loopback network. Each lesson runs in a process of
//! its own, because it changes limits and namespaces of its process, and because the end of a
//! process cleans up reliably: `reset` ends it and starts another one.

mod http;
mod lesson;
mod routes;
mod session;
mod watched;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use sockserver::ThreadingTCPServer;

use crate::builtin::BUILTIN;
use crate::lab::Tier;
use crate::page;
use crate::scenario::Scenario;
use crate::watch;
pub(crate) use lesson::lesson;
use routes::{Handler, Shared};
use session::Session;
pub(crate) use watched::watched;

/// The first argument of the process of a lesson.
pub(crate) const LESSON: &str = "--lesson";
/// The first argument of the process of programs, and their source in place of a scenario.
pub(crate) const WATCHED: &str = "--watched";

/// Connections at once. A page uses two.
const CONNECTIONS: usize = 32;
/// A lesson ends when no page has been connected for this long.
const UNUSED: Duration = Duration::from_secs(600);
/// Bytes of a recording.
const RECORDING: usize = 32 << 20;

/// A lesson in the list of the page.
#[derive(Clone, Debug)]
pub(crate) struct Lesson {
    /// Name of a built-in scenario, or a path.
    pub(crate) source: String,
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) group: &'static str,
}

/// How many of the built-in lessons are the beginning of a course.
const FIRST: usize = 12;

fn lessons(file: Option<&str>, programs: Option<String>) -> Vec<Lesson> {
    let mut lessons = Vec::new();
    if let Some(title) = programs {
        let (source, name) = (WATCHED.to_owned(), "watch".to_owned());
        lessons.push(Lesson { source, name, title, group: "programs" });
    }
    if let Some(path) = file {
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        lessons.push(Lesson { source: path.to_owned(), title: name.clone(), name, group: "your" });
    }
    for (number, builtin) in BUILTIN.iter().enumerate() {
        let scenario = Scenario::parse(builtin.name, builtin.text);
        lessons.push(Lesson {
            source: builtin.name.to_owned(),
            name: builtin.name.to_owned(),
            title: scenario.map(|scenario| scenario.title().to_owned()).unwrap_or_default(),
            group: if number < FIRST { "first" } else { "more" },
        });
    }
    lessons
}

/// Serves the page until the process is ended.
pub(crate) fn serve(arguments: &[String]) -> Result<u8, String> {
    let (mut port, mut tier, mut file, mut recording) = (0_u16, None, None, RECORDING);
    let mut programs = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--port" => {
                let text = value()?;
                port = text.parse().map_err(|_| format!("{text:?} is not a port"))?;
            }
            "--tier" => {
                let name = value()?;
                let known = Tier::parse(name);
                tier = Some(known.ok_or_else(|| format!("{name:?} is not veth, tun or loopback"))?);
            }
            // Those of `socklens watch`.
            "--a" | "--b" | "--hold" | "--max-memory" | "--max-descriptors" => {
                programs.extend([argument.clone(), value()?.clone()]);
            }
            "--hold-packets" | "--stay" | "--all" => programs.push(argument.clone()),
            "--max-recording" => {
                recording = usize::try_from(watch::bytes(value()?)?).unwrap_or(usize::MAX);
            }
            option if option.starts_with('-') => return Err(format!("serve has no option {option}")),
            path if file.is_none() => file = Some(path),
            _ => return Err("serve takes one scenario".to_owned()),
        }
    }
    if file.is_some() && !programs.is_empty() {
        let option = &programs[0];
        return Err(format!(
            "serve takes a scenario, or programs, and not both: {option} is an option of programs"
        ));
    }
    // A path, so that it cannot be taken for an option or for a built-in scenario.
    let file = file.map(|file| if file.contains('/') { file.to_owned() } else { format!("./{file}") });
    if let Some(file) = &file {
        crate::builtin::load(file)?;
    }
    let mut title = None;
    if !programs.is_empty() {
        title = Some(watch::parse(&programs)?.title());
        // The server itself limits the recording.
        programs.extend(["--max-recording".to_owned(), usize::MAX.to_string()]);
        programs.extend(tier.iter().flat_map(|tier| ["--tier".to_owned(), tier.to_string()]));
    }
    let starts_at_once = file.is_some() || title.is_some();
    let cannot = |error: io::Error| format!("cannot serve: {error}");
    let token = page::random(16).map_err(cannot)?;
    let session = Arc::new(Session::new(recording, tier, programs));
    let shared = Arc::new(Shared::new(token.clone(), lessons(file.as_deref(), title), session.clone()));
    let handler = shared.clone();
    let watched = session.clone();
    let server = ThreadingTCPServer::builder(move || Handler::new(handler.clone()))
        .max_connections(CONNECTIONS)
        .read_timeout(http::HEAD_LIMIT)
        .write_timeout(Duration::from_secs(20))
        .service_actions(move |_| watched.end_if_unused(UNUSED))
        .bind(("127.0.0.1", port))
        .map_err(cannot)?;
    let port = server.server_address().port().unwrap_or_default();
    shared.serve_at(port);
    if starts_at_once {
        session.start(&shared.lessons[0].source).map_err(cannot)?;
    }
    let text = format!(
        "Open this address in a browser. Ctrl-C ends the server.\n\n    http://127.0.0.1:{port}/?token={token}\n\n"
    );
    let mut output = io::stdout();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(cannot)?;
    server.serve_forever().map_err(cannot)?;
    Ok(0)
}
