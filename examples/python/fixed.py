"""A TCP server with a fixed greeting, as short as it can be.

It greets one client, prints what that one says, and ends. What can go wrong
is left to the language; `careful` is the same program with every error caught.

Run it, here on its default address:

    python3 examples/python/fixed.py 127.0.0.1 9999

Talk to it with `fixed_client`, in either language, or with
`nc 127.0.0.1 9999`.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    # A listening socket in one call: bound, SO_REUSEADDR set, listening.
    with socket.create_server((host, port)) as server:
        print("listening on %s:%d" % server.getsockname(), flush=True)

        sock, peer = server.accept()
        with sock:
            print("%s:%d connected" % peer)
            sock.sendall(b"Hello, client!\n")
            said = sock.recv(1024)
            print("client says:", said.decode(errors="replace").rstrip())


if __name__ == "__main__":
    main()
