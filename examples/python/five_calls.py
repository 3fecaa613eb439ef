"""The calls of every TCP server: socket, bind, listen, accept, close.

It prints the address of its first client and exits. If it is started again
immediately, bind fails with EADDRINUSE for a minute. `greeting` shows how to avoid
that. For this reason its port differs from that of the other programs.

Run it (the arguments shown are the defaults):

    python3 examples/python/five_calls.py 127.0.0.1 9998

Connect with `five_calls_client`, in either language, or with `nc 127.0.0.1 9998`.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9998)
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind((host, port))
    server.listen()
    # With port 0 the system chooses a free port. This prints it.
    print("listening on %s:%d" % server.getsockname(), flush=True)

    # accept blocks, and returns a new socket for this connection. The listening socket could
    # accept more.
    sock, peer = server.accept()
    print("%s:%d" % peer)

    sock.close()
    server.close()


if __name__ == "__main__":
    main()
