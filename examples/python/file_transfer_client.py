"""The client of the file transfer: says hello and writes what it is sent.

On a terminal it shows how far it is.

Start `file_transfer` first, in either language, then run:

    python3 examples/python/file_transfer_client.py 127.0.0.1 9999 received_file

To send it a file by hand: `nc -l -N 127.0.0.1 9999 < README.md`.
"""

import socket
import sys

import common


def progress(got, sign):
    # Drawn on standard error, and only for somebody who watches.
    if sys.stderr.isatty():
        print(f"\r{got} bytes {sign}", end="", file=sys.stderr, flush=True)


def main():
    host, port, path = common.address_and(
        "127.0.0.1", 9999, "FILE", "received_file"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect((host, port))
        sock.sendall(b"hello\n")
        got = 0
        with open(path, "wb") as file:
            # A piece received need not be a piece sent: TCP keeps the order
            # of the bytes, not the borders between them.
            while piece := sock.recv(1024):
                file.write(piece)
                got += len(piece)
                progress(got, "|/-\\"[got // 1024 % 4])
        progress(got, " \n")
    print(f"received {got} bytes into {path}")


if __name__ == "__main__":
    main()
