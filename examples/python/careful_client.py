"""The client of `fixed` with complete error handling.

Every error is printed with the name of its errno, and the socket is closed in any
case. The exit code is 0 on success and 1 after an error. Run it without a server to
see ECONNREFUSED.

Start `careful` first, in either language, then run it (the arguments shown are the
defaults):

    python3 examples/python/careful_client.py 127.0.0.1 9999

To act as the server, run `nc -l 127.0.0.1 9999`. Send nothing for five seconds to
see the timeout.
"""

import socket
import sys

import common


def greet(sock, address):
    # A timeout for each of the following calls, including connect.
    sock.settimeout(5)
    sock.connect(address)
    greeting = sock.recv(1024)
    # An end of file is not a system error, but here it is unexpected.
    if not greeting:
        raise OSError("the server disconnected without a greeting")
    print("server says:", greeting.decode(errors="replace").rstrip())
    sock.sendall(b"Hello, server!\n")


def main():
    address = common.address("127.0.0.1", 9999)
    sock = None
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        greet(sock, address)
    except OSError as err:
        print("error: %s:%d:" % address, common.named(err), file=sys.stderr)
        return 1
    finally:
        # The socket does not exist if its creation failed.
        if sock is not None:
            sock.close()
            print("socket closed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
