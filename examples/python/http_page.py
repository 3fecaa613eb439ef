"""An HTTP server for a browser, with a small page at `/`.

Other paths are answered with 404, other methods with 405, and anything that is not
HTTP/1 with 400. It prints each request with its status, and runs until it is
interrupted.

An HTTP/1.1 client may send several requests on a connection. The third argument
selects the model: `tcp`, `threading` or `forking`. In `tcp` a connection that stays
open would keep other clients waiting, so it is closed after the answer.

Run it (the arguments shown are the defaults) and open http://127.0.0.1:8000/ :

    python3 examples/python/http_page.py 127.0.0.1 8000 threading

Connect with `http_get`, in either language, with `curl -i http://127.0.0.1:8000/`,
or with `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc 127.0.0.1 8000`.
"""

import re
import socket
import socketserver

import common

PAGE = "<!doctype html>\n<title>sock</title>\n<h1>Hello, browser!</h1>\n"


TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
BAD = "400 Bad Request"


def read_head(rfile):
    """Reads a request head up to the empty line, at most 8 KiB. Empty lines
    before it are skipped (RFC 9112, section 2.2)."""
    head, left = b"", 8192
    while line := rfile.readline(left):
        left -= len(line)
        head += line
        if head in (b"\r\n", b"\n"):
            head = b""
        if head.endswith((b"\n\r\n", b"\n\n")):
            break
    return head


def path_of(target):
    """Returns the path of a target such as `/?a=b` or `http://host/`."""
    if target.startswith(("http://", "https://")):
        rest = target.split("://", 1)[1]
        start = re.search("[/?]", rest)
        target = rest[start.start():] if start else "/"
    return target.split("?")[0] or "/"


def parse_head(head):
    """Returns the request line to print, the status to answer with, and whether
    another request may follow on the connection."""
    line, *lines = head.decode("latin-1").removesuffix("\n").removesuffix("\r").removesuffix("\n").split("\n")
    words = line.rstrip("\r").split(" ")
    headers = [header.rstrip("\r").partition(":") for header in lines if header not in ("", "\r")]
    complete = head.endswith((b"\n\r\n", b"\n\n"))
    named = all(colon and TOKEN.fullmatch(name) for name, colon, _ in headers)
    clean = not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", line.rstrip("\r") + "".join(h[2] for h in headers))
    if not complete or not named or not clean or len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        return "-", BAD, False
    method, target, version = words

    def values(wanted):
        return [value.strip() for name, _, value in headers if name.lower() == wanted]

    lengths, codings, hosts = values("content-length"), values("transfer-encoding"), values("host")
    # Where a body ends must be unambiguous, or its bytes could be taken for a
    # request of another client behind the same proxy (RFC 9112, sections 3.2 and 6.3).
    is_ambiguous = len(lengths) > 1 or not all(re.fullmatch("[0-9]+", n) for n in lengths) or codings and lengths
    if is_ambiguous or len(hosts) > 1 or version == "HTTP/1.1" and not hosts:
        return f"{method} {target}", BAD, False
    if method not in ("GET", "HEAD"):
        return f"{method} {target}", "405 Method Not Allowed", False
    status = "200 OK" if path_of(target) == "/" else "404 Not Found"
    has_body = codings or any(int(n) for n in lengths)
    options = [option.strip().lower() for value in values("connection") for option in value.split(",")]
    # No body is read here. The connection of a request that has one is closed, so
    # that the body is never taken for the next request.
    keeps = version == "HTTP/1.1" and "close" not in options and not has_body
    return f"{method} {target}", status, keeps


class Page(socketserver.StreamRequestHandler):
    def handle(self):
        while self.handle_one_request():
            pass

    def handle_one_request(self):
        head = read_head(self.rfile)
        # Browsers open connections in advance, and may close them unused.
        if not head:
            return False

        request, status, keep_alive = parse_head(head)
        keep_alive = keep_alive and self.server.keeps_alive
        print("%s:%d" % self.client_address, request, status)
        body = PAGE if status == "200 OK" else f"<h1>{status}</h1>\n"
        answer = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\n"
        answer += "Allow: GET, HEAD\r\nConnection: %s\r\n" % ("keep-alive" if keep_alive else "close")
        answer += f"Content-Length: {len(body)}\r\n\r\n"
        answer += "" if request.startswith("HEAD ") else body
        self.wfile.write(answer.encode())
        if not keep_alive:
            # Closing a socket with unread input resets the connection, and the answer may be
            # lost. So shut down the sending side first, then read the rest.
            self.request.shutdown(socket.SHUT_WR)
            self.rfile.read(65536)
        return keep_alive


MODELS = {
    "tcp": socketserver.TCPServer,
    "threading": socketserver.ThreadingTCPServer,
    "forking": socketserver.ForkingTCPServer,
}


def main():
    host, port, model = common.address_and("127.0.0.1", 8000, "MODEL", "threading")
    if model not in MODELS:
        common.refuse(f"MODEL must be tcp, threading or forking, not '{model}'")
    Server = MODELS[model]
    Server.allow_reuse_address = True
    Server.daemon_threads = True
    Server.keeps_alive = model != "tcp"
    with Server((host, port), Page) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
