//! The head of an HTTP/1 request, for the HTTP examples.

use std::io::{self, BufRead, Read};

/// Reads a request head up to the empty line, at most 8 KiB. Empty lines before it are
/// skipped (RFC 9112, section 2.2).
pub(crate) fn read_head(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut lines = reader.take(8192);
    while lines.read_until(b'\n', &mut head)? > 0 {
        if head == b"\r\n" || head == b"\n" {
            head.clear();
        }
        if head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") {
            break;
        }
    }
    Ok(head)
}

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Otherwise it is answered with 400.
    pub(crate) is_valid: bool,
    /// Whether another request may follow on the connection.
    pub(crate) keeps: bool,
}

impl Request {
    /// Parses a head. Returns `None` if it is not one of HTTP/1.
    pub(crate) fn parse(head: &[u8]) -> Option<Request> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let complete = request.parse(head).is_ok_and(|status| status.is_complete());
        let (method, target) = (request.method.filter(|_| complete)?, request.path?);
        let values = |name: &'static str| {
            let headers =
                request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
            headers.map(|header| header.value)
        };
        let lengths: Vec<&[u8]> = values("Content-Length").collect();
        let has_coding = values("Transfer-Encoding").count() > 0;
        let is_version_1_1 = request.version == Some(1);
        // Where a body ends must be unambiguous, or its bytes could be taken for a request of
        // another client behind the same proxy (RFC 9112, sections 3.2 and 6.3).
        let is_number = |value: &&[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let is_ambiguous =
            lengths.len() > 1 || !lengths.iter().all(is_number) || has_coding && !lengths.is_empty();
        let hosts = values("Host").count();
        let is_valid = !is_ambiguous && hosts <= 1 && (hosts == 1 || !is_version_1_1);
        let has_body = has_coding || lengths.iter().any(|value| value.iter().any(|&digit| digit != b'0'));
        let closes = values("Connection").any(|value| {
            let mut options = value.split(|&byte| byte == b',');
            options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
        });
        // The examples read no body. The connection of a request that has one is closed, so that
        // the body is never taken for the next request.
        let keeps = is_valid && is_version_1_1 && !closes && !has_body;
        Some(Request { method: method.to_owned(), target: target.to_owned(), is_valid, keeps })
    }

    /// Returns the path of a target such as `/?a=b` or `http://host/`.
    pub(crate) fn path(&self) -> &str {
        let target = &*self.target;
        let absolute = ["http://", "https://"].iter().find_map(|scheme| target.strip_prefix(scheme));
        let path = match absolute {
            Some(rest) => rest.find(['/', '?']).map_or("/", |start| &rest[start..]),
            None => target,
        };
        match path.split('?').next() {
            Some("") => "/",
            path => path.unwrap_or("/"),
        }
    }
}
