"""The client of `fixed` with every error caught and named by its errno.

Whatever happens, the socket is closed in the end. Its exit code is 0 when
all went well and 1 otherwise; run it without a server to see ECONNREFUSED.

Start `careful` first, in either language, then run:

    python3 examples/python/careful_client.py 127.0.0.1 9999

To play the server yourself: `nc -l 127.0.0.1 9999`; wait five seconds with
the greeting to see the time-out.
"""

import socket
import sys

import common


def greet(sock, address):
    # One limit for each call from here on, connect among them.
    sock.settimeout(5)
    sock.connect(address)
    said = sock.recv(1024)
    # An end of file is no error to the system, but it is one to us.
    if not said:
        raise OSError("the server left without a word")
    print("server says:", said.decode(errors="replace").rstrip())
    sock.sendall(b"Hello, server!\n")


def main():
    address = common.address("127.0.0.1", 9999)
    sock = None
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        greet(sock, address)
    except OSError as err:
        print("error:", common.named(err), file=sys.stderr)
        return 1
    finally:
        # Only a socket that came to be can be closed.
        if sock is not None:
            sock.close()
            print("socket closed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
