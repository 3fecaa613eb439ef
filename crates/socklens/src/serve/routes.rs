//! What the server answers, and which requests it refuses.

use std::hint::black_box;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sockserver::{StreamContext, StreamRequestHandler};

use crate::export::{self, Language};
use crate::page;
use crate::record::{Object, read_packets, write_pcapng};
use crate::serve::http::{
    self, BAD_REQUEST, CONFLICT, FORBIDDEN, INTERNAL, NO_CONTENT, NOT_ALLOWED, NOT_FOUND, OK, Request,
    Status, UNAVAILABLE,
};
use crate::serve::session::{News, Session};
use crate::serve::{Lesson, WATCHED};

/// A comment line is sent to an idle page after this time, for what is between the page and the server.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How often a page that receives nothing is checked for having closed its connection.
const CHECK: Duration = Duration::from_millis(200);

/// Returns whether the page has closed its connection. What it sends after its request is ignored.
fn is_gone(cx: &StreamContext<'_>) -> bool {
    match cx.request.recv_into_nowait(&mut [0; 512]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    token: String,
    /// The authorities by which a browser on this machine reaches the server.
    hosts: OnceLock<[String; 2]>,
    pub(crate) lessons: Vec<Lesson>,
    session: Arc<Session>,
}

/// Compares in a time that does not depend on where the texts differ.
fn is_equal(one: &str, two: &str) -> bool {
    let differences = one.bytes().zip(two.bytes()).fold(0_u8, |all, (a, b)| black_box(all | (a ^ b)));
    one.len() == two.len() && black_box(differences) == 0
}

impl Shared {
    pub(crate) fn new(token: String, lessons: Vec<Lesson>, session: Arc<Session>) -> Shared {
        Shared { token, hosts: OnceLock::new(), lessons, session }
    }

    /// Sets the port, once it is known.
    pub(crate) fn serve_at(&self, port: u16) {
        let _ = self.hosts.set([format!("127.0.0.1:{port}"), format!("localhost:{port}")]);
    }

    /// Returns why a request is refused. The checks of `Host` and `Origin` keep out pages of other
    /// sites, also if their name was made to mean this machine (DNS rebinding). The token keeps out
    /// other users of this machine. A command needs it in a header, which no other site can set.
    fn refuses(&self, request: &Request) -> Option<&'static str> {
        let hosts = self.hosts.get().map_or(&[][..], |hosts| &hosts[..]);
        if !request.host.as_ref().is_some_and(|host| hosts.contains(host)) {
            return Some("the host of the request is not this server");
        }
        let is_own = |origin: &String| {
            origin.strip_prefix("http://").is_some_and(|host| hosts.iter().any(|own| own == host))
        };
        if request.origin.as_ref().is_some_and(|origin| !is_own(origin)) {
            return Some("the origin of the request is another site");
        }
        let given = match request.method.as_str() {
            "GET" => request.token.as_deref().or(request.parameter("token")),
            _ => request.token.as_deref(),
        };
        if !is_equal(given.unwrap_or_default(), &self.token) {
            return Some("the token is missing or wrong: open the address that socklens has printed");
        }
        None
    }

    fn boot(&self) -> String {
        let lessons: Vec<String> = self
            .lessons
            .iter()
            .map(|lesson| {
                let mut object = Object::new("lesson");
                object.text("name", &lesson.name);
                object.text("title", &lesson.title);
                object.text("group", lesson.group);
                object.end()
            })
            .collect();
        let mut boot = Object::new("boot");
        boot.text("mode", "live");
        boot.text("token", &self.token);
        boot.list("lessons", &lessons);
        boot.end()
    }

    /// Executes a command of the page.
    fn command(&self, path: &str) -> Result<Status, (Status, String)> {
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let failed = |error: io::Error| (INTERNAL, format!("cannot start the lesson: {error}"));
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
            if is_number { Ok(text.to_owned()) } else { Err((BAD_REQUEST, "not a number".to_owned())) }
        };
        let command = match parts[..] {
            ["lesson", index] => {
                let index: usize = number(index)?.parse().unwrap_or(usize::MAX);
                let lesson = self.lessons.get(index).ok_or((NOT_FOUND, "no such lesson".to_owned()))?;
                return self.session.start(&lesson.source).map(|()| NO_CONTENT).map_err(failed);
            }
            ["reset"] => {
                return match self.session.reset().map_err(failed)? {
                    true => Ok(NO_CONTENT),
                    false => Err((CONFLICT, "no lesson runs".to_owned())),
                };
            }
            [word @ ("step" | "run" | "pause" | "hold" | "pass")] => word.to_owned(),
            ["until", line] => format!("until {}", number(line)?),
            ["packet", id, word @ ("deliver" | "drop" | "duplicate")] => format!("{word} {}", number(id)?),
            _ => return Err((NOT_FOUND, "there is no such command".to_owned())),
        };
        if self.session.command(&command) {
            Ok(NO_CONTENT)
        } else {
            Err((CONFLICT, "no lesson runs".to_owned()))
        }
    }
}

/// Serves one connection.
#[derive(Debug)]
pub(crate) struct Handler {
    shared: Arc<Shared>,
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
/// The policy of what is not a page.
const NO_PAGE: &str = "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n";

/// The language of a path such as `/session.py`.
fn language_of(path: &str) -> Option<Language> {
    path.strip_prefix("/session.").and_then(Language::of_extension)
}

impl StreamRequestHandler for Handler {
    const DISABLE_NAGLE_ALGORITHM: bool = true;

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let request = match http::read(cx) {
            // Browsers open connections in advance, and may close them unused.
            Ok(None) => return Ok(()),
            Ok(Some(Ok(request))) => request,
            Ok(Some(Err(status))) => return http::answer(cx, (status, TEXT, NO_PAGE), status.1, false),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        };
        let keeps = request.keeps;
        let text = |cx: &mut StreamContext<'_>, status, body: &str| {
            http::answer(cx, (status, TEXT, NO_PAGE), body, keeps)
        };
        if let Some(reason) = self.shared.refuses(&request) {
            return http::answer(cx, (FORBIDDEN, TEXT, NO_PAGE), reason, false);
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/") => self.page(cx, keeps),
            ("GET", "/events") => self.events(cx, &request),
            ("GET", "/session.jsonl") => {
                let recording = self.recording();
                http::answer(cx, (OK, "application/x-ndjson", NO_PAGE), &recording, keeps)
            }
            ("GET", "/session.html") => {
                let recording = self.recording();
                let page = page::replay(&self.name(), &recording, &export::all(&recording))?;
                let extra = "Content-Disposition: attachment\r\n";
                http::answer(cx, (OK, HTML, extra), &page, keeps)
            }
            ("GET", "/session.pcapng") => match read_packets(&self.recording()) {
                Some((head, events)) => {
                    let mut file = Vec::new();
                    write_pcapng(&mut file, &head, &events)?;
                    http::answer(cx, (OK, "application/x-pcapng", NO_PAGE), &file, keeps)
                }
                None => text(cx, CONFLICT, "nothing has been recorded yet"),
            },
            ("GET", path) if language_of(path).is_some() => {
                match language_of(path).map(|language| export::export(&self.recording(), language)) {
                    Some(Ok(program)) => http::answer(cx, (OK, TEXT, NO_PAGE), &program, keeps),
                    Some(Err(reason)) => text(cx, CONFLICT, &reason),
                    None => text(cx, NOT_FOUND, ""),
                }
            }
            ("POST", path) => match self.shared.command(path) {
                Ok(status) => text(cx, status, ""),
                Err((status, reason)) => text(cx, status, &reason),
            },
            ("GET", path) if self.is_command(path) => {
                http::answer(cx, (NOT_ALLOWED, TEXT, "Allow: POST\r\n"), "a command is sent by POST", keeps)
            }
            ("GET", _) => text(cx, NOT_FOUND, "there is no such page"),
            _ => http::answer(cx, (NOT_ALLOWED, TEXT, "Allow: GET, POST\r\n"), "GET or POST", false),
        }
    }
}

impl Handler {
    pub(crate) fn new(shared: Arc<Shared>) -> Handler {
        Handler { shared }
    }

    fn is_command(&self, path: &str) -> bool {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        ["lesson", "reset", "step", "run", "pause", "until", "packet", "hold", "pass"].contains(&first)
    }

    fn page(&self, cx: &mut StreamContext<'_>, keeps: bool) -> io::Result<()> {
        let page = page::page("socklens", &self.shared.boot(), "", "'self'")?;
        let policy = format!("Content-Security-Policy: {}; frame-ancestors 'none'\r\n", page.policy);
        http::answer(cx, (OK, HTML, &policy), &page.text, keeps)
    }

    fn name(&self) -> String {
        let state = self.shared.session.lock();
        let source = state.source.as_deref().unwrap_or("socklens");
        if source == WATCHED { "watch" } else { source.rsplit('/').next().unwrap_or(source) }.to_owned()
    }

    fn recording(&self) -> String {
        let mut text = self.shared.session.lock().lines.join("\n");
        text.push('\n');
        text
    }

    /// Server-sent events: each line of the recording is an event, whose identity is the number of
    /// the run and of the line. A browser that reconnects sends the last one it has received.
    fn events(&self, cx: &mut StreamContext<'_>, request: &Request) -> io::Result<()> {
        let session = &self.shared.session;
        let Some(_connected) = session.connect() else {
            return http::answer(cx, (UNAVAILABLE, TEXT, NO_PAGE), "too many pages are open", false);
        };
        let (mut run, mut next) = request.last_event.as_deref().and_then(position).unwrap_or((0, 0));
        let head = http::head(OK, "text/event-stream", NO_PAGE) + "Connection: close\r\n\r\nretry: 500\n\n";
        let mut text = head;
        let mut last = Instant::now();
        loop {
            if cx.wfile.write_all(text.as_bytes()).is_err() {
                // The page was closed.
                return Ok(());
            }
            last = if text.is_empty() { last } else { Instant::now() };
            text = match session.wait(run, next, CHECK) {
                News::Run(number, source) => {
                    (run, next) = (number, 0);
                    let mut object = Object::new("run");
                    object.number("run", number);
                    object.optional("name", source.as_deref());
                    // Without an identity: a page that reconnects now begins again.
                    format!("event: run\ndata: {}\n\n", object.end())
                }
                News::Lines(first, lines) => {
                    next = first + lines.len();
                    let events = lines.iter().enumerate();
                    events
                        .map(|(place, line)| format!("id: {run}-{}\ndata: {line}\n\n", first + place))
                        .collect()
                }
                News::Nothing if is_gone(cx) => return Ok(()),
                News::Nothing if last.elapsed() < HEARTBEAT => String::new(),
                News::Nothing => ":\n\n".to_owned(),
            };
        }
    }
}

/// Where a page continues that has received the event of this identity.
fn position(identity: &str) -> Option<(u64, usize)> {
    let (run, line) = identity.split_once('-')?;
    Some((run.parse().ok()?, line.parse::<usize>().ok()?.checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_equal_only_if_all_of_them_is() {
        assert!(is_equal("0123", "0123"));
        for wrong in ["", "012", "01234", "1123", "0124"] {
            assert!(!is_equal(wrong, "0123"), "{wrong}");
        }
        assert!(!is_equal("", "0"));
    }

    #[test]
    fn a_page_continues_behind_its_last_event() {
        assert_eq!(position("3-17"), Some((3, 18)));
        for wrong in ["", "3", "-1", "3-", "x-1", "3-x", "3-18446744073709551615"] {
            assert_eq!(position(wrong), None, "{wrong}");
        }
    }
}
