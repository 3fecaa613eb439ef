"""A server with TCPServer and a request handler. You type the answers.

It prints the address of each client and its message. The server creates a new
handler for each connection, and serves one connection after another until it is
interrupted.

Run it (the arguments shown are the defaults):

    python3 examples/python/wrote.py 127.0.0.1 9999

Connect with `wrote_client`, in either language, or with `nc 127.0.0.1 9999`. Use a
new connection for each line.
"""

import socketserver

import common


class Wrote(socketserver.BaseRequestHandler):
    def handle(self):
        data = self.request.recv(1024)
        print("%s:%d wrote:" % self.client_address)
        print(data.decode(errors="replace").rstrip())
        # At end of input no answer is sent, and the connection is closed.
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
