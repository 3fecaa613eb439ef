"""The client of `fixed`. It prints the server's greeting and sends its own.

It handles no errors: the first one ends the program. `careful_client` is the same
program with complete error handling.

Start `fixed` first, in either language, then run it (the arguments shown are the
defaults):

    python3 examples/python/fixed_client.py 127.0.0.1 9999

To act as the server, run `nc -l 127.0.0.1 9999` and type a greeting.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.create_connection((host, port)) as sock:
        greeting = sock.recv(1024)
        print("server says:", greeting.decode(errors="replace").rstrip())
        sock.sendall(b"Hello, server!\n")


if __name__ == "__main__":
    main()
