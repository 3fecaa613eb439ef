"""An HTTP page for a browser, read line by line: `GET /` answers a small page.

Another path is not found (404), another method not allowed (405), and what is
not HTTP/1 a bad request (400). It runs until you interrupt it.

A client of HTTP/1.1 may ask again on its connection. A third argument says
where requests run: `tcp`, `threading` or `forking`.

Run it, here on its default address, and open http://127.0.0.1:8000/ :

    python3 examples/python/http_page.py 127.0.0.1 8000 threading

Talk to it with `http_get`, in either language, `curl -i http://127.0.0.1:8000/`,
or `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc 127.0.0.1 8000`.
"""

import socket
import socketserver

import common

PAGE = "<!doctype html>\n<title>sock</title>\n<h1>Hello, browser!</h1>\n"


def judge(head):
    """What a request asks for, the status to answer it with, and whether
    another may follow."""
    line, *headers = head.decode("latin-1").strip("\r\n").split("\n")
    words = line.rstrip("\r").split(" ")
    complete = head.endswith((b"\n\r\n", b"\n\n")) and all(":" in h for h in headers)
    if not complete or len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        return "-", "400 Bad Request", False
    method, target, version = words
    # A request with a body is refused, and its body is not looked at.
    if method not in ("GET", "HEAD"):
        return f"{method} {target}", "405 Method Not Allowed", False
    # A query asks for the same page.
    found = target.split("?")[0] == "/"
    closes = any(h.replace(" ", "").strip().lower() == "connection:close" for h in headers)
    keep_alive = version == "HTTP/1.1" and not closes
    return f"{method} {target}", "200 OK" if found else "404 Not Found", keep_alive


class Page(socketserver.StreamRequestHandler):
    def handle(self):
        while self.handle_one_request():
            pass

    def handle_one_request(self):
        # An empty line ends the head; 8 KiB of it are enough for anybody.
        head = b""
        while line := self.rfile.readline(8192 - len(head)):
            head += line
            if head.endswith((b"\n\r\n", b"\n\n")):
                break
        # Browsers connect ahead of time, and may leave without a word.
        if not head:
            return False

        request, status, keep_alive = judge(head)
        print("%s:%d" % self.client_address, request, status)
        body = PAGE if status == "200 OK" else f"<h1>{status}</h1>\n"
        answer = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\n"
        answer += "Allow: GET, HEAD\r\nConnection: %s\r\n" % ("keep-alive" if keep_alive else "close")
        answer += f"Content-Length: {len(body)}\r\n\r\n"
        answer += "" if request.startswith("HEAD ") else body
        self.wfile.write(answer.encode())
        if not keep_alive:
            # To close with bytes unread is to reset the connection, and the answer
            # may be lost: end our side first, then read what is left.
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
    with Server((host, port), Page) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
