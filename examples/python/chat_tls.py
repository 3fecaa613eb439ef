"""A chat server over TLS that forwards each line of a client to all other clients.

It is `chat` with one mixin more. The first line of a client is its name. A client that
does not read is disconnected after five seconds. The server prints who joins and
leaves.

Make certificates with `make_ca` first, then run it (the arguments shown are the
defaults):

    python3 examples/python/chat_tls.py 127.0.0.1 8443 certs

Connect with `openssl s_client -quiet -connect 127.0.0.1:8443 -CAfile certs/ca.pem` in
several terminals.
"""

import socket
import socketserver
import struct
import threading

import common
import common_tls

# The longest line of a client, in bytes.
MAX_LINE = 1000


class Chat(socketserver.StreamRequestHandler):
    def handle(self):
        # Limits sends and not receives.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 5, 0))
        self.sending = threading.Lock()
        self.name = self.rfile.readline(MAX_LINE).decode().rstrip()
        if not self.name:
            return
        with self.server.lock:
            self.server.room.append(self)
        self.broadcast(f"* {self.name} joined\n")
        print(f"{self.name} joins", flush=True)
        try:
            while line := self.rfile.readline(MAX_LINE):
                self.broadcast(f"{self.name}: {line.decode().rstrip()}\n")
        except OSError:
            pass
        self.leave()
        print(f"{self.name} leaves", flush=True)
        self.broadcast(f"* {self.name} left\n")

    def broadcast(self, line):
        """Sends a line to all members except its sender."""
        with self.server.lock:
            members = [member for member in self.server.room if member is not self]
        for member in members:
            try:
                with member.sending:
                    member.request.sendall(line.encode())
            except OSError:
                member.hang_up()
                member.leave()

    def leave(self):
        with self.server.lock:
            if self in self.server.room:
                self.server.room.remove(self)

    def hang_up(self):
        # Ends its handler, which is blocked in a read.
        try:
            self.request.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Server(common_tls.TlsMixIn, socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, *args):
        self.lock = threading.Lock()
        self.room = []
        super().__init__(*args)


def main():
    host, port, directory = common.address_and("127.0.0.1", 8443, "CERTS", "certs")
    Server.context = common_tls.server_context(directory)
    with Server((host, port), Chat) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
