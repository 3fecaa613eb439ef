"""The calls of every TCP client: socket, connect, print, close.

It prints its own address, which the system chose when it connected, and
which the server prints as that of its peer.

Start `five_calls` first, in either language, then run:

    python3 examples/python/five_calls_client.py 127.0.0.1 9998

Any server will do for it: `nc -l 127.0.0.1 9998` is one.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9998)
    # A client needs no bind: connect gives the socket an address of its own.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.connect((host, port))
    print("connected from %s:%d" % sock.getsockname())
    sock.close()


if __name__ == "__main__":
    main()
