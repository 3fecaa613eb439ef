"""The client of the file transfer. It sends a hello and writes the file that it
receives.

On a terminal it shows the progress. At the end it prints the number of bytes
received.

Start `file_transfer` first, in either language, then run it (the arguments shown
are the defaults):

    python3 examples/python/file_transfer_client.py 127.0.0.1 9999 received_file

To act as the server, run `nc -l -N 127.0.0.1 9999 < README.md`.
"""

import socket
import sys

import common


def progress(got, sign):
    # Drawn on standard error, and only on a terminal.
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
            # The received parts need not match the sent ones. TCP keeps the order of the bytes,
            # but no boundaries.
            while part := sock.recv(1024):
                file.write(part)
                got += len(part)
                progress(got, "|/-\\"[got // 1024 % 4])
        progress(got, " \n")
    print(f"received {got} bytes into {path}")


if __name__ == "__main__":
    main()
