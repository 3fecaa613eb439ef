"""A server with a process for each client, with ForkingTCPServer.

It prints each line and sends it back in capitals, until it is interrupted.
`forks_by_hand` is the same server without socketserver.

Run it (the arguments shown are the defaults):

    python3 examples/python/forks.py 127.0.0.1 9999

Connect with `many_clients`, in either language, or with `nc 127.0.0.1 9999` in
several terminals.
"""

import socketserver

import common


class Upper(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            text = line.decode(errors="replace").rstrip()
            # A forked child exits without flushing buffered output.
            print("%s:%d:" % self.client_address, text, flush=True)
            self.wfile.write(line.upper())


class Server(socketserver.ForkingTCPServer):
    allow_reuse_address = True


def main():
    host, port = common.address("127.0.0.1", 9999)
    # The server reaps its children between two connections.
    with Server((host, port), Upper) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
