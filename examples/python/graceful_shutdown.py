"""A server with a graceful shutdown.

The first SIGTERM or Ctrl-C lets running requests finish for at most ten seconds.
The server sends each line back in capitals. The answer to `slow` takes five
seconds. socketserver has no drain, so the program keeps a list of idle clients and
shuts them down.

Run it (the arguments shown are the defaults):

    python3 examples/python/graceful_shutdown.py 127.0.0.1 9999

Connect with `nc 127.0.0.1 9999`, and stop the server in the meantime.
"""

import os
import signal
import socket
import socketserver
import sys
import threading
import time

import common


class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        while True:
            with self.server.lock:
                self.server.idle.add(self.request)
            line = self.rfile.readline()
            with self.server.lock:
                self.server.idle.discard(self.request)
            if not line:
                return
            if line.strip() == b"slow":
                time.sleep(5)
            self.wfile.write(line.upper())
            if self.server.stopping:
                return


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    stopping = False

    def __init__(self, *args):
        self.lock = threading.Lock()
        self.idle = set()
        super().__init__(*args)

    def drain(self, limit):
        self.stopping = True
        self.shutdown()
        with self.lock:
            for request in self.idle:
                request.shutdown(socket.SHUT_RD)
        busy = [thread for thread in threading.enumerate() if thread.name.startswith("Thread-")]
        until = time.monotonic() + limit
        for thread in busy:
            if thread is not threading.current_thread():
                thread.join(max(0, until - time.monotonic()))
        return any(thread.is_alive() for thread in busy if thread is not threading.current_thread())


def main():
    host, port = common.address("127.0.0.1", 9999)
    server = Server((host, port), Answer)
    cut = []

    def stop(*_):
        # shutdown() in the serving thread would deadlock.
        threading.Thread(target=lambda: cut.append(server.drain(10)), name="drain").start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print("listening on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
    while not cut:
        time.sleep(0.05)
    sys.stdout.flush()
    os._exit(1 if cut[0] else 0)


if __name__ == "__main__":
    main()
