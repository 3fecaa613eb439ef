"""Echo over a Unix-domain stream: the address is a path, all else as in TCP.

It serves one client, removes the path and ends. A path left behind by an
interrupted run makes bind fail with EADDRINUSE; remove it by hand.

Run it, here on its default path:

    python3 examples/python/echo_unix.py /tmp/echo_unix

Talk to it with `echo_unix_client`, in either language, or with
`nc -U /tmp/echo_unix`.
"""

import os
import socket

import common


def serve(server):
    server.listen()
    print("listening on", server.getsockname(), flush=True)

    # The peer has no name here: a client of a stream need not bind.
    sock, _ = server.accept()
    with sock:
        print("connected")
        while data := sock.recv(1024):
            print("got:", data.decode(errors="replace").rstrip())
            sock.sendall(data)


def main():
    path = common.path("/tmp/echo_unix")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        # Closing a socket does not remove the path that bind has made.
        try:
            serve(server)
        finally:
            os.unlink(path)


if __name__ == "__main__":
    main()
