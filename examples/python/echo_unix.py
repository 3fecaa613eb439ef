"""An echo server over a Unix stream socket, whose address is a path.

It prints the data it receives, serves one client, removes the path and exits. If an
interrupted run has left the path behind, bind fails with EADDRINUSE. Remove the
path by hand then.

Run it (the arguments shown are the defaults):

    python3 examples/python/echo_unix.py /tmp/echo_unix

Connect with `echo_unix_client`, in either language, or with `nc -U /tmp/echo_unix`.
"""

import os
import socket

import common


def serve(server):
    server.listen()
    print("listening on", server.getsockname(), flush=True)

    # The peer has no address, because a stream client need not bind.
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
        # Closing a socket does not remove the path that bind created.
        try:
            serve(server)
        finally:
            os.unlink(path)


if __name__ == "__main__":
    main()
