"""A thread for each client, written by hand.

Each line comes back in capitals. `threads` is the same server in the words
of socketserver. It runs until you interrupt it.

Run it, here on its default address:

    python3 examples/python/threads_by_hand.py 127.0.0.1 9999

Talk to it with `many_clients`, in either language, or with
`nc 127.0.0.1 9999` from several terminals at once.
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
            # The thread owns the socket from here on; this one goes back to
            # accept at once, so nobody waits for anybody.
            threading.Thread(target=serve, args=(sock, peer), daemon=True).start()


if __name__ == "__main__":
    main()
