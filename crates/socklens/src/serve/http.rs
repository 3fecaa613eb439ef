//! Requests and answers of HTTP/1.1, without bodies of requests.

use std::io::{self, BufRead, Read, Write};
use std::time::{Duration, Instant};

use sockserver::StreamContext;

/// Bytes of the head of a request.
const HEAD: u64 = 8192;
/// How long a head may take.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u16, pub(crate) &'static str);

pub(crate) const OK: Status = Status(200, "OK");
pub(crate) const NO_CONTENT: Status = Status(204, "No Content");
pub(crate) const BAD_REQUEST: Status = Status(400, "Bad Request");
pub(crate) const FORBIDDEN: Status = Status(403, "Forbidden");
pub(crate) const NOT_FOUND: Status = Status(404, "Not Found");
pub(crate) const NOT_ALLOWED: Status = Status(405, "Method Not Allowed");
pub(crate) const CONFLICT: Status = Status(409, "Conflict");
pub(crate) const TOO_LARGE: Status = Status(413, "Content Too Large");
pub(crate) const HEAD_TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
pub(crate) const INTERNAL: Status = Status(500, "Internal Server Error");
pub(crate) const UNAVAILABLE: Status = Status(503, "Service Unavailable");

/// A request.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) host: Option<String>,
    pub(crate) origin: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) last_event: Option<String>,
    pub(crate) keeps: bool,
}

impl Request {
    /// The value of a parameter of the query. Its values have no characters that are escaped.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Reads a request. `Ok(None)` at the end of the connection; an error of HTTP is a status.
pub(crate) fn read(cx: &mut StreamContext<'_>) -> io::Result<Option<Result<Request, Status>>> {
    let begin = Instant::now();
    let mut head = Vec::new();
    loop {
        let before = head.len();
        let left = HEAD.saturating_sub(before as u64);
        (&mut cx.rfile).take(left).read_until(b'\n', &mut head)?;
        if head.len() == before {
            return Ok(match before {
                0 => None,
                length if length as u64 >= HEAD => Some(Err(HEAD_TOO_LARGE)),
                _ => Some(Err(BAD_REQUEST)),
            });
        }
        // Each receive has a limit, and so has their sum.
        if begin.elapsed() > HEAD_LIMIT {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match head.as_slice() {
            b"\r\n" | b"\n" => head.clear(),
            lines if lines.ends_with(b"\n\r\n") || lines.ends_with(b"\n\n") => break,
            _ => {}
        }
    }
    Ok(Some(parse(&head)))
}

fn parse(head: &[u8]) -> Result<Request, Status> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let is_complete = parsed.parse(head).is_ok_and(|status| status.is_complete());
    let (true, Some(method), Some(target)) = (is_complete, parsed.method, parsed.path) else {
        return Err(BAD_REQUEST);
    };
    let values = |name: &str| -> Vec<String> {
        let named = parsed.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| String::from_utf8_lossy(header.value).trim().to_owned()).collect()
    };
    let single = |name: &str| -> Result<Option<String>, Status> {
        let mut values = values(name);
        if values.len() > 1 { Err(BAD_REQUEST) } else { Ok(values.pop()) }
    };
    // A body would be taken for the next request.
    let length = single("Content-Length")?.unwrap_or_else(|| "0".to_owned());
    if !values("Transfer-Encoding").is_empty() {
        return Err(TOO_LARGE);
    }
    match length.parse::<u64>() {
        Ok(0) => {}
        Ok(_) => return Err(TOO_LARGE),
        Err(_) => return Err(BAD_REQUEST),
    }
    let closes = values("Connection")
        .iter()
        .any(|value| value.split(',').any(|option| option.trim().eq_ignore_ascii_case("close")));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        host: single("Host")?,
        origin: single("Origin")?,
        token: single("X-Socklens-Token")?,
        last_event: single("Last-Event-ID")?,
        keeps: parsed.version == Some(1) && !closes,
    })
}

/// Headers of every answer: nothing is cached, embedded or guessed.
const COMMON: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\
    Referrer-Policy: no-referrer\r\nCross-Origin-Opener-Policy: same-origin\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\n";

/// The head of an answer, up to the headers of its body.
pub(crate) fn head(status: Status, content: &str, extra: &str) -> String {
    let Status(number, reason) = status;
    format!("HTTP/1.1 {number} {reason}\r\nContent-Type: {content}\r\n{COMMON}{extra}")
}

/// Writes an answer in one call.
pub(crate) fn answer(
    cx: &mut StreamContext<'_>,
    (status, content, extra): (Status, &str, &str),
    body: &(impl AsRef<[u8]> + ?Sized),
    keeps: bool,
) -> io::Result<()> {
    let body = body.as_ref();
    let mut text = head(status, content, extra);
    if status == NO_CONTENT {
        // RFC 9110, section 8.6: no length.
    } else {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text += if keeps { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" };
    cx.close_connection = !keeps;
    cx.wfile.write_all(&[text.as_bytes(), body].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_repeated_headers_are_refused() {
        let status = |text: &str| parse(text.as_bytes()).err();
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
        assert_eq!(status("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n"), Some(TOO_LARGE));
        assert_eq!(status("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"), Some(BAD_REQUEST));
        assert_eq!(status("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), Some(TOO_LARGE));
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), Some(BAD_REQUEST));
        assert_eq!(status("GET / HTTP/1.1\r\nOrigin: a\r\nOrigin: b\r\n\r\n"), Some(BAD_REQUEST));
        assert_eq!(status("nonsense\r\n\r\n"), Some(BAD_REQUEST));
    }

    #[test]
    fn parameters_of_the_query_are_found_by_their_whole_name() {
        let request = parse(b"GET /e?xtoken=a&token=b&token=c HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!((request.path.as_str(), request.parameter("token")), ("/e", Some("b")));
        assert_eq!(request.parameter("tok"), None);
    }
}
