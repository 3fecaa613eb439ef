"""The five calls of every TCP server: socket, bind, listen, accept, print.

It prints the address of the first one who connects, and ends. Start it again
at once and bind fails with EADDRINUSE, for a minute: `greeting` knows the cure.
That is why its port is not that of the others.

Run it, here on its default address:

    python3 examples/python/five_calls.py 127.0.0.1 9998

Talk to it with `five_calls_client`, in either language, or with
`nc 127.0.0.1 9998`.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9998)
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind((host, port))
    server.listen()
    # Port 0 asks the system for a free one; here is which it gave.
    print("listening on %s:%d" % server.getsockname(), flush=True)

    # accept waits, and returns a new socket for this one connection; the
    # listening one would go on to listen.
    sock, peer = server.accept()
    print("%s:%d" % peer)

    sock.close()
    server.close()


if __name__ == "__main__":
    main()
