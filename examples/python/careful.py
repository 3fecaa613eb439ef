"""The server of `fixed` with every error caught and named by its errno.

Whatever happens, the sockets are closed in the end. Its exit code is 0 when
all went well and 1 otherwise; start it twice to see EADDRINUSE.

Run it, here on its default address:

    python3 examples/python/careful.py 127.0.0.1 9999

Talk to it with `careful_client`, in either language, or with
`nc 127.0.0.1 9999`; leave nc at once to see an error.
"""

import socket
import sys

import common


def greet(sock):
    # A peer who connects and then says nothing must not hold us for ever.
    sock.settimeout(5)
    sock.sendall(b"Hello, client!\n")
    said = sock.recv(1024)
    # An end of file is no error to the system, but it is one to us.
    if not said:
        raise OSError("the client left without a word")
    print("client says:", said.decode(errors="replace").rstrip())


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
        print("error:", common.named(err), file=sys.stderr)
        return 1
    finally:
        # Only a socket that came to be can be closed.
        if server is not None:
            server.close()
            print("server closed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
