"""A Unix-domain echo that knows its clients: the system tells which process of
which user is at the other end, and only one's own are served.

No password could do that: nobody can pretend to be somebody else here. It serves
one client, removes the path and ends. A path left behind by an interrupted run
makes bind fail with EADDRINUSE; remove it by hand.

Run it, here on its default path:

    python3 examples/python/peer_credentials.py /tmp/peer_credentials

Talk to it with `echo_unix_client /tmp/peer_credentials`, in either language, or
with `nc -U /tmp/peer_credentials`.
"""

import os
import socket
import struct

import common


def serve(server):
    server.listen()
    print("listening on", server.getsockname(), flush=True)

    sock, _ = server.accept()
    with sock:
        # Linux's struct ucred; other systems have calls of their own.
        ucred = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, gid = struct.unpack("iII", ucred)
        print(f"process {pid} of user {uid} and group {gid} connected")
        if uid != os.geteuid():
            sock.sendall(b"you are not my user\n")
            return
        data = sock.recv(1024)
        print("got:", data.decode(errors="replace").rstrip())
        sock.sendall(data)


def main():
    path = common.path("/tmp/peer_credentials")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        # Closing a socket does not remove the path that bind has made.
        try:
            serve(server)
        finally:
            os.unlink(path)


if __name__ == "__main__":
    main()
