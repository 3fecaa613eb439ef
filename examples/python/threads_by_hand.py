"""A server with a thread for each client, without socketserver.

It prints each line and sends it back in capitals, until it is interrupted.
`threads` is the same server with socketserver.

Run it (the arguments shown are the defaults):

    python3 examples/python/threads_by_hand.py 127.0.0.1 9999

Connect with `many_clients`, in either language, or with `nc 127.0.0.1 9999` in
several terminals.
"""

import socket
import threading

import common


def serve(sock, peer):
    with sock, sock.makefile("rb") as lines:
        for line in lines:
            print("%s:%d:" % peer, line.decode(errors="replace").rstrip())
            sock.sendall(line.upper())


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.create_server((host, port)) as server:
        print("listening on %s:%d" % server.getsockname(), flush=True)
        while True:
            sock, peer = server.accept()
            # The new thread owns the socket. This thread continues to accept, so no client waits
            # for another.
            threading.Thread(target=serve, args=(sock, peer), daemon=True).start()


if __name__ == "__main__":
    main()
