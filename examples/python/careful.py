"""The server of `fixed` with complete error handling.

Every error is printed with the name of its errno, and the sockets are closed in any
case. The exit code is 0 on success and 1 after an error. Start it twice to see
EADDRINUSE.

Run it (the arguments shown are the defaults):

    python3 examples/python/careful.py 127.0.0.1 9999

Connect with `careful_client`, in either language, or with `nc 127.0.0.1 9999`. Stop
nc without sending a line to see an error.
"""

import socket
import sys

import common


def greet(sock):
    # A client that sends nothing must not block the server indefinitely.
    sock.settimeout(5)
    sock.sendall(b"Hello, client!\n")
    answer = sock.recv(1024)
    # An end of file is not a system error, but here it is unexpected.
    if not answer:
        raise OSError("the client disconnected without an answer")
    print("client says:", answer.decode(errors="replace").rstrip())


def serve(server, address):
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(address)
    server.listen()
    print("listening on %s:%d" % server.getsockname(), flush=True)

    sock, peer = server.accept()
    print("%s:%d connected" % peer)
    try:
        greet(sock)
    finally:
        sock.close()
        print("connection closed")


def main():
    address = common.address("127.0.0.1", 9999)
    server = None
    try:
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        serve(server, address)
    except OSError as err:
        print("error: %s:%d:" % address, common.named(err), file=sys.stderr)
        return 1
    finally:
        # The socket does not exist if its creation failed.
        if server is not None:
            server.close()
            print("server closed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
