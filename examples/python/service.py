"""An HTTP service for use behind a balancer, under systemd or in Kubernetes.

`/` answers with the file PAGE, which SIGHUP loads again. `/live` and `/ready` are for
probes, and `/metrics` is for Prometheus. SIGTERM or Ctrl-C begins the lame duck: for
LAME_DUCK seconds `/ready` answers 503, the rest is served as before, and connections
are closed after an answer. Then requests that have begun are finished. A second signal
ends the lame duck.

MODEL is `tcp` or `threading`. PROXY is `off`, or the networks of balancers that send
version 1 of the PROXY protocol: `127.0.0.1,10.0.0.0/8`. A socket of systemd
(`LISTEN_FDS`) is used instead of HOST and PORT, and systemd is notified.

Run it (the arguments shown are the defaults):

    python3 examples/python/service.py 127.0.0.1 8000 threading 3 off /etc/os-release

Try `curl -i http://127.0.0.1:8000/ready`, again after Ctrl-C, and
`pkill -HUP -f service.py`.
"""

import http.server
import ipaddress
import os
import re
import signal
import socket
import socketserver
import threading

import common

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.enter(self.request)
        if self.server.proxies:
            words = self.rfile.readline(107).split()
            if words[:1] != [b"PROXY"] or len(words) not in (2, 6):
                raise ValueError("no PROXY protocol header")
            if len(words) == 6:
                self.client_address = (words[2].decode(), int(words[4]))

    def finish(self):
        self.server.leave(self.request)
        super().finish()

    def parse_request(self):
        # Empty lines before a request are skipped (RFC 9112, section 2.2).
        while self.raw_requestline in (b"\r\n", b"\n"):
            self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not super().parse_request():
            return False
        hosts, lengths = (self.headers.get_all(name, []) for name in ("Host", "Content-Length"))
        codings = self.headers.get_all("Transfer-Encoding", [])
        # Where a body ends must be unambiguous (RFC 9112, sections 3.2 and 6.3).
        is_ambiguous = len(lengths) > 1 or not all(re.fullmatch("[0-9]+", n) for n in lengths) or codings and lengths
        is_folded = any("\n" in value for value in self.headers.values())
        has_one_host = len(hosts) == 1 or not hosts and self.request_version == "HTTP/1.0"
        if is_ambiguous or is_folded or self.headers.defects or not has_one_host:
            self.send_error(400)
            return False
        options = ",".join(self.headers.get_all("Connection", [])).lower().split(",")
        if "close" in [option.strip() for option in options]:
            self.close_connection = True
        return True

    def do_GET(self):
        state, status, kind = self.server.state, 200, "text/plain; charset=utf-8"
        path = re.sub("^https?://[^/?]*", "", self.path).split("?")[0] or "/"
        if path == "/":
            body = self.server.text
        elif path == "/metrics":
            body, kind = self.server.metrics(), OPENMETRICS
        elif path in ("/live", "/ready"):
            body = state + "\n"
            status = 503 if path == "/ready" and state != "Ready" else 200
        else:
            status, body = 404, "not found\n"
        # A client that sends its next request while the server stops may lose it.
        has_body = "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        if state != "Ready" or has_body or self.server.is_sequential:
            self.close_connection = True
        body = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close" if self.close_connection else "keep-alive")
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)
        with self.server.lock:
            self.server.requests += 1

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


class Server(socketserver.TCPServer):
    allow_reuse_address = True
    is_sequential = True

    def __init__(self, address, page, proxies):
        self.page, self.proxies, self.state = page, proxies, "Ready"
        self.lock, self.open = threading.Lock(), set()
        self.accepted = self.requests = 0
        self.stopping = threading.Event()
        self.load()
        if os.environ.get("LISTEN_PID") == str(os.getpid()):
            super().__init__(address, Service, bind_and_activate=False)
            self.socket.close()
            self.socket = socket.socket(fileno=3)
            self.server_address = self.socket.getsockname()
        else:
            super().__init__(address, Service)

    def load(self, *_):
        try:
            with open(self.page, encoding="utf-8") as file:
                self.text = file.read()
            print(self.page, "is loaded", flush=True)
        except OSError as error:
            if not hasattr(self, "text"):
                raise SystemExit(f"{self.page}: {error.strerror}") from error
            print("not loaded:", error, flush=True)

    def enter(self, request):
        with self.lock:
            self.accepted += 1
            self.open.add(request)

    def leave(self, request):
        with self.lock:
            self.open.discard(request)

    def metrics(self):
        with self.lock:
            accepted, requests, in_flight = self.accepted, self.requests, len(self.open)
        return (
            f"# TYPE sockserver_accepted counter\nsockserver_accepted_total {accepted}\n"
            f"# TYPE sockserver_requests counter\nsockserver_requests_total {requests}\n"
            f"# TYPE sockserver_in_flight gauge\nsockserver_in_flight {in_flight}\n# EOF\n"
        )

    def verify_request(self, request, client_address):
        host = ipaddress.ip_address(client_address[0])
        return not self.proxies or any(host in network for network in self.proxies)

    def enter_state(self, state):
        self.state = state
        print(f"process {os.getpid()}: {state}", flush=True)

    def stop(self, lame_duck):
        self.enter_state("LameDuck")
        self.stopping.wait(lame_duck)
        self.enter_state("Draining")
        notify("STOPPING=1")
        self.shutdown()
        with self.lock:
            for request in self.open:
                # The handler reads the end of the connection instead of the next request.
                request.shutdown(socket.SHUT_RD)


class ThreadingServer(socketserver.ThreadingMixIn, Server):
    is_sequential = False


def notify(state):
    """Sends the state to the service manager, if there is one."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), path)


def main():
    more = [("MODEL", "threading"), ("LAME_DUCK", "3"), ("PROXY", "off"), ("PAGE", "/etc/os-release")]
    host, port, (model, lame_duck, proxy, page) = common.address_and_more("127.0.0.1", 8000, more)
    if model not in ("tcp", "threading"):
        common.refuse("MODEL must be tcp or threading")
    try:
        lame_duck = float(lame_duck)
    except ValueError:
        common.refuse("LAME_DUCK must be a number of seconds")
    proxies = [] if proxy == "off" else [ipaddress.ip_network(network) for network in proxy.split(",")]
    server = (Server if model == "tcp" else ThreadingServer)((host, port), page, proxies)

    def stop(*_):
        if server.state == "Ready":
            server.state = "LameDuck"
            threading.Thread(target=server.stop, args=(lame_duck,)).start()
        else:
            server.stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, server.load)
    print("listening on %s:%d" % server.server_address[:2], flush=True)
    server.enter_state("Ready")
    notify("READY=1")
    server.serve_forever()
    server.server_close()
    server.enter_state("Stopped")
    print(server.accepted, "accepted")


if __name__ == "__main__":
    main()
