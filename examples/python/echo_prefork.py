"""An echo over pre-forked processes.

socketserver has no such class; this is the one its users write.

Run it, here on its default address:

    python3 examples/python/echo_prefork.py 127.0.0.1 9999

Talk to it with `echo_tcp_client`, in either language, or with
`nc 127.0.0.1 9999` from several terminals at once:
each holds one of the four processes. Kill one, and see it replaced.
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
