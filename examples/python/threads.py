"""A thread for each client, by ThreadingTCPServer.

Each line comes back in capitals. `threads_by_hand` is the same server
without socketserver. It runs until you interrupt it.

Run it, here on its default address:

    python3 examples/python/threads.py 127.0.0.1 9999

Talk to it with `many_clients`, in either language, or with
`nc 127.0.0.1 9999` from several terminals at once.
"""

import socketserver

import common


class Upper(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            text = line.decode(errors="replace").rstrip()
            print("%s:%d:" % self.client_address, text)
            self.wfile.write(line.upper())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    # Threads of clients who stay do not keep an interrupted program alive.
    daemon_threads = True


def main():
    host, port = common.address("127.0.0.1", 9999)
    with Server((host, port), Upper) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
