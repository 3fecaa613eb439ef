"""The client of `fixed`: prints the server's greeting and sends its own.

What can go wrong is left to the language; `careful_client` is the same
program with every error caught.

Start `fixed` first, in either language, then run:

    python3 examples/python/fixed_client.py 127.0.0.1 9999

To play the server yourself: `nc -l 127.0.0.1 9999`, and type a greeting.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.create_connection((host, port)) as sock:
        said = sock.recv(1024)
        print("server says:", said.decode(errors="replace").rstrip())
        sock.sendall(b"Hello, server!\n")


if __name__ == "__main__":
    main()
