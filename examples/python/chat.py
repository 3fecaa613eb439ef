"""A chat server that forwards each line of a client to all other clients.

The first line of a client is its name. A client that is a hundred lines behind is
disconnected. Without such a limit a client that does not read would fill the memory
or block the others. The server prints who joins, leaves and is disconnected.

Run it (the arguments shown are the defaults):

    python3 examples/python/chat.py 127.0.0.1 9999

Connect with `nc 127.0.0.1 9999` in several terminals.
"""

import queue
import socket
import socketserver
import threading

import common

# The number of lines that a client may be behind.
MAX_QUEUED = 100
# The longest line of a client, in bytes.
MAX_LINE = 1000


class Chat(socketserver.StreamRequestHandler):
    def handle(self):
        self.name = self.rfile.readline(MAX_LINE).decode().rstrip()
        if not self.name:
            return
        self.lines = queue.Queue(MAX_QUEUED)
        with self.server.lock:
            self.server.room.append(self)
        self.broadcast(f"* {self.name} joined\n")
        print(f"{self.name} joins", flush=True)
        writer = threading.Thread(target=self.write)
        writer.start()
        try:
            while line := self.rfile.readline(MAX_LINE):
                self.broadcast(f"{self.name}: {line.decode().rstrip()}\n")
        except OSError:
            pass
        with self.server.lock:
            if self in self.server.room:
                self.server.room.remove(self)
        self.hang_up()
        try:
            # Ends the writer. If the queue is full, the writer ends by itself.
            self.lines.put_nowait(None)
        except queue.Full:
            pass
        writer.join()
        print(f"{self.name} leaves", flush=True)
        self.broadcast(f"* {self.name} left\n")

    def write(self):
        try:
            while (line := self.lines.get()) is not None:
                self.request.sendall(line)
        except OSError:
            pass

    def broadcast(self, line):
        """Sends a line to all members except its sender."""
        with self.server.lock:
            for member in self.server.room[:]:
                if member is self:
                    continue
                try:
                    member.lines.put_nowait(line.encode())
                except queue.Full:
                    print(f"{member.name} is disconnected: {MAX_QUEUED} lines behind", flush=True)
                    # Ends its handler, which is blocked in a read, and its writer.
                    member.hang_up()
                    self.server.room.remove(member)

    def hang_up(self):
        try:
            self.request.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, *args):
        self.lock = threading.Lock()
        self.room = []
        super().__init__(*args)


def main():
    host, port = common.address("127.0.0.1", 9999)
    with Server((host, port), Chat) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
