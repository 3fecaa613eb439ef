"""A server with limits: three clients at once, two per address, and one second for the
first byte.

It sends each line back in capitals, and answers `stats` with its counters. Clients
beyond a limit receive a message and are closed. It prints which clients were
refused or timed out. All of this is implemented by hand, and a client that sends
one byte at a time is not detected.

Run it (the arguments shown are the defaults):

    python3 examples/python/limits.py 127.0.0.1 9999

Connect with `(echo hello; cat) | nc 127.0.0.1 9999` in several terminals. The third
client is refused. With `nc` alone the first line must be typed within a second.
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
                    self.wfile.write(self.server.stats().encode())
                else:
                    self.wfile.write(line.upper())
                line = self.rfile.readline()
            self.server.count["finished"] += 1
        except TimeoutError:
            print("%s:%d timed out: first byte" % self.client_address, flush=True)
            self.server.count["timed out"] += 1


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    max_connections = 3
    max_connections_per_ip = 2

    def __init__(self, *args):
        self.lock = threading.Lock()
        self.active = collections.Counter()
        self.count = collections.Counter()
        super().__init__(*args)

    def stats(self):
        words = [f"{self.count[word]} {word}" for word in ("accepted", "finished", "rejected", "timed out")]
        return ", ".join(words) + f", {self.active.total()} in flight\n"

    def verify_request(self, request, client_address):
        with self.lock:
            self.count["accepted"] += 1
            if (
                self.active.total() < self.max_connections
                and self.active[client_address[0]] < self.max_connections_per_ip
            ):
                self.active[client_address[0]] += 1
                return True
            self.count["rejected"] += 1
        print("%s:%d refused: too many clients" % client_address, flush=True)
        request.sendall(b"too many clients\n")
        return False

    def process_request_thread(self, request, client_address):
        super().process_request_thread(request, client_address)
        with self.lock:
            self.active[client_address[0]] -= 1


def main():
    host, port = common.address("127.0.0.1", 9999)
    with Server((host, port), Answer) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
