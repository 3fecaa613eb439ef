"""A chat: what one client says all the others hear.

The first line is the client's name, each further line goes to everybody else.
Nobody waits for a client that does not read: who is a hundred lines behind is
dropped. That is this program's policy; without one, one sleeping client would
fill the memory, or stop the talk.

Run it, here on its default address:

    python3 examples/python/chat.py 127.0.0.1 9999

Talk to it with `nc 127.0.0.1 9999` from several terminals.
"""

import queue
import socket
import socketserver
import threading

import common

# How many lines a client may be behind.
MOST_BEHIND = 100


class Talk(socketserver.StreamRequestHandler):
    def handle(self):
        self.name = self.rfile.readline().decode().rstrip()
        if not self.name:
            return
        self.lines = queue.Queue(MOST_BEHIND)
        with self.server.lock:
            self.server.room.append(self)
        self.tell(f"* {self.name} is here\n")
        print(f"{self.name} joins", flush=True)
        writer = threading.Thread(target=self.write)
        writer.start()
        try:
            for line in self.rfile:
                self.tell(f"{self.name}: {line.decode().rstrip()}\n")
        except OSError:
            pass
        with self.server.lock:
            if self in self.server.room:
                self.server.room.remove(self)
        self.hang_up()
        try:
            # The writer waits for this; if the queue is full it ends by itself.
            self.lines.put_nowait(None)
        except queue.Full:
            pass
        writer.join()
        print(f"{self.name} leaves", flush=True)
        self.tell(f"* {self.name} has gone\n")

    def write(self):
        try:
            while (line := self.lines.get()) is not None:
                self.request.sendall(line)
        except OSError:
            pass

    def tell(self, line):
        """Gives a line to everybody but the one it is from."""
        with self.server.lock:
            for member in self.server.room[:]:
                if member is self:
                    continue
                try:
                    member.lines.put_nowait(line.encode())
                except queue.Full:
                    print(f"{member.name} is dropped: {MOST_BEHIND} lines behind", flush=True)
                    # Ends its handler, which waits to read, and its writer.
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
    with Server((host, port), Talk) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
