"""TCPServer and a request handler: prints who wrote what, you type the answer.

The server makes a new handler for each connection and serves one connection
after the other, until you interrupt it.

Run it, here on its default address:

    python3 examples/python/wrote.py 127.0.0.1 9999

Talk to it with `wrote_client`, in either language, or with
`nc 127.0.0.1 9999`, once for each line.
"""

import socketserver

import common


class Wrote(socketserver.BaseRequestHandler):
    def handle(self):
        data = self.request.recv(1024)
        print("%s:%d wrote:" % self.client_address)
        print(data.decode(errors="replace").rstrip())
        # At the end of the input there is nothing more to say, and the
        # client finds its connection closed.
        answer = common.ask("> ")
        if answer is not None:
            self.request.sendall(answer.encode() + b"\n")


class Server(socketserver.TCPServer):
    allow_reuse_address = True


def main():
    host, port = common.address("127.0.0.1", 9999)
    with Server((host, port), Wrote) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
