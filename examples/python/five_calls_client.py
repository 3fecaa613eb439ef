"""The calls of every TCP client: socket, connect, close.

It prints its own address, which the system chose in connect, and which the server
prints as that of its peer.

Start `five_calls` first, in either language, then run it (the arguments shown are
the defaults):

    python3 examples/python/five_calls_client.py 127.0.0.1 9998

It works with any TCP server, for example `nc -l 127.0.0.1 9998`.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9998)
    # A client needs no bind, because connect assigns an address to the socket.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.connect((host, port))
    print("connected from %s:%d" % sock.getsockname())
    sock.close()


if __name__ == "__main__":
    main()
