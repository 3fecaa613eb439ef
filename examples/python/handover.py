"""A server that a second start of the same program replaces, without a lost connection.

The first process listens. Each further process receives the listener through the Unix
socket PATH, and takes over as soon as it serves. The previous process finishes its
requests and exits. The answer to each line is the id of the process. Programs of both languages
take over from each other.

Run it (the arguments shown are the defaults):

    python3 examples/python/handover.py 127.0.0.1 9999 /tmp/handover

Run it again in a second terminal. Meanwhile connect with
`while echo who | nc -N 127.0.0.1 9999; do :; done`: each request is answered.
"""

import os
import select
import signal
import socket
import socketserver
import sys
import threading

import common

HELLO = b"sockserver-handover 1\n"


class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"%d\n" % os.getpid())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


def receive(path):
    """Returns the connection to the predecessor, and its sockets, or None."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(30)
    try:
        peer.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    peer.sendall(HELLO)
    offer, fds, _, _ = socket.recv_fds(peer, 4096, 2)
    if not offer.startswith(b"offer 2 ") or len(fds) != 2:
        sys.exit(offer.decode().strip())
    return peer, [socket.socket(fileno=fd) for fd in fds]


def offer(server, control):
    """Hands the listener over to the first successor that is ready."""
    while True:
        # The other process, which shares the socket, expects it to be non-blocking.
        select.select([control], [], [])
        peer = control.accept()[0]
        peer.setblocking(True)
        peer.settimeout(30)
        try:
            if peer.recv(100) != HELLO:
                continue
            listeners = [server.fileno(), control.fileno()]
            socket.send_fds(peer, [b"offer 2 own\n-\n-\n"], listeners)
            if peer.recv(100) != b"ready\n":
                continue
        except OSError:
            continue
        server.shutdown()
        peer.sendall(b"released\n")
        return


def main():
    host, port, path = common.address_and("127.0.0.1", 9999, "PATH", "/tmp/handover")
    predecessor = receive(path)
    if predecessor:
        peer, (listener, control) = predecessor
        server = Server(listener.getsockname(), Answer, bind_and_activate=False)
        server.socket.close()
        server.socket = listener
    else:
        server = Server((host, port), Answer)
        if os.path.exists(path):
            os.remove(path)
        control = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        control.bind(path)
        os.umask(mask)
        control.listen()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    print("listening on %s:%d" % server.server_address, flush=True)
    if predecessor:
        peer.sendall(b"ready\n")
        if peer.recv(100) not in (b"released\n", b""):
            sys.exit("the handover was refused")
    threading.Thread(target=offer, args=(server, control), daemon=True).start()
    server.serve_forever()
    # Waits for the requests that are being served.
    server.server_close()


if __name__ == "__main__":
    main()
