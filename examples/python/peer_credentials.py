"""A Unix stream echo that serves only clients of its own user.

The kernel reports the process, user and group at the other end of the connection.
These cannot be forged, so no password is needed. The server prints them, serves one
client, removes the path and exits. If an interrupted run has left the path behind,
bind fails with EADDRINUSE. Remove the path by hand then.

Run it (the arguments shown are the defaults):

    python3 examples/python/peer_credentials.py /tmp/peer_credentials

Connect with `echo_unix_client /tmp/peer_credentials`, in either language, or with
`nc -U /tmp/peer_credentials`.
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
        # Linux's struct ucred. Other systems have other calls.
        ucred = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, gid = struct.unpack("iII", ucred)
        print(f"process {pid} of user {uid} and group {gid} connected")
        if uid != os.geteuid():
            sock.sendall(b"access denied: another user\n")
            return
        data = sock.recv(1024)
        print("got:", data.decode(errors="replace").rstrip())
        sock.sendall(data)


def main():
    path = common.path("/tmp/peer_credentials")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        # Closing a socket does not remove the path that bind created.
        try:
            serve(server)
        finally:
            os.unlink(path)


if __name__ == "__main__":
    main()
