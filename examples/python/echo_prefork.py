"""An echo server with four pre-forked worker processes.

socketserver has no such class, so the program implements it.

Run it (the arguments shown are the defaults):

    python3 examples/python/echo_prefork.py 127.0.0.1 9999

Connect with `echo_tcp_client`, in either language, or with `nc 127.0.0.1 9999` in
several terminals. Each client occupies one of the four processes. Kill one of them
to see that it is replaced.
"""

import os
import signal
import socketserver
import sys

import common


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class Server(socketserver.TCPServer):
    allow_reuse_address = True


def main():
    host, port = common.address("127.0.0.1", 9999)
    workers = set()

    def stop(*_):
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)

    with Server((host, port), Echo) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        while True:
            while len(workers) < 4:
                pid = os.fork()
                if pid == 0:
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                    server.serve_forever()
                    sys.exit()
                workers.add(pid)
            workers.discard(os.wait()[0])


if __name__ == "__main__":
    main()
