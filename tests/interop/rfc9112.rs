//! Requests on which a server and a proxy in front of it could differ (RFC 9112), for each HTTP
//! example: a body is never taken for the next request.

/// A request, and the statuses of the answers. Nothing follows the last answer.
pub(crate) const REQUESTS: [(&str, &[u16]); 25] = [
    ("GET / HTTP/1.0\n\n", &[200]),
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 404]),
    ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 200]),
    // 2.2: empty lines before a request.
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
    ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 404]),
    // 3.2: exactly one Host.
    ("GET / HTTP/1.1\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    // 3.2.2: the absolute form.
    ("GET http://here/ HTTP/1.1\r\nHost: here\r\n\r\n", &[200]),
    ("GET http://here?a=b HTTP/1.1\r\nHost: here\r\n\r\n", &[200]),
    ("GET http://here/x HTTP/1.1\r\nHost: here\r\n\r\n", &[404]),
    // 5.1 and 5.2: no space before the colon, no folded line.
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", &[400]),
    // 6.3: the length of a body is beyond doubt, and what follows it is not answered.
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 27\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", &[200]),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         1b\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n",
        &[200],
    ),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 0\r\n\r\nabc", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 0\r\n\r\nabc", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", &[400]),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", &[400]),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nabc", &[400]),
    // 9.6: `close` among other options, in any case, ends the connection.
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: CLOSE\r\n\r\n\
         GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200],
    ),
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n", &[200]),
];

/// Returns the statuses of the answers to a request.
pub(crate) fn statuses(asked: &str, answers: &str) -> Vec<u16> {
    let (mut statuses, mut rest) = (Vec::new(), answers);
    while !rest.is_empty() {
        let (head, body) = rest.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{asked:?}: {answers:?}"));
        let status = head.strip_prefix("HTTP/1.").and_then(|line| line.get(2..5));
        statuses.push(status.and_then(|status| status.parse().ok()).expect("a status"));
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
        let has_body = statuses.len() > 1 || !asked.starts_with("HEAD ");
        rest = &body[if has_body { length } else { 0 }..];
    }
    statuses
}
