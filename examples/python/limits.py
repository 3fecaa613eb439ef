"""A server with limits: three clients at once, two of one address, and none that
is silent for more than a second.

Each line comes back in capitals; to `stats` the answer is how many came, and what
became of them. Those beyond a limit are told so. socketserver has no limits: all
of this is by hand, and a client that trickles is not found out.

Run it, here on its default address:

    python3 examples/python/limits.py 127.0.0.1 9999

Talk to it with `(echo hello; cat) | nc 127.0.0.1 9999` from several terminals: the
third is sent away. With `nc` alone there is a second to type the first line.
"""

import collections
import socketserver
import threading

import common


class Answer(socketserver.StreamRequestHandler):
    timeout = 1

    def handle(self):
        try:
            line = self.rfile.readline()
            self.request.settimeout(60)
            while line:
                if line.rstrip() == b"stats":
                    self.wfile.write(self.server.tell().encode())
                else:
                    self.wfile.write(line.upper())
                line = self.rfile.readline()
            self.server.count["finished"] += 1
        except TimeoutError:
            print("%s:%d is late: first byte" % self.client_address, flush=True)
            self.server.count["timed out"] += 1


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    max_connections = 3
    max_connections_per_ip = 2

    def __init__(self, *args):
        self.lock = threading.Lock()
        self.there = collections.Counter()
        self.count = collections.Counter()
        super().__init__(*args)

    def tell(self):
        words = [f"{self.count[word]} {word}" for word in ("accepted", "finished", "rejected", "timed out")]
        return ", ".join(words) + f", {self.there.total()} in flight\n"

    def verify_request(self, request, client_address):
        with self.lock:
            self.count["accepted"] += 1
            if (
                self.there.total() < self.max_connections
                and self.there[client_address[0]] < self.max_connections_per_ip
            ):
                self.there[client_address[0]] += 1
                return True
            self.count["rejected"] += 1
        print("%s:%d is one too many" % client_address, flush=True)
        request.sendall(b"too many clients\n")
        return False

    def process_request_thread(self, request, client_address):
        super().process_request_thread(request, client_address)
        with self.lock:
            self.there[client_address[0]] -= 1


def main():
    host, port = common.address("127.0.0.1", 9999)
    with Server((host, port), Answer) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
