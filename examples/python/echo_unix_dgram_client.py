"""The client of the Unix datagram echo. It sends a greeting and prints the answer.

A datagram can be answered only if its sender has an address. So the client binds a
path of its own, that of the server with the suffix `.client`, and removes it at the
end.

Start `echo_unix_dgram` first, in either language, then run it (the arguments shown
are the defaults):

    python3 examples/python/echo_unix_dgram_client.py /tmp/echo_unix_dgram

To see the datagram arrive, run `nc -l -u -U /tmp/echo_unix_dgram` as the server.
"""

import os
import socket

import common


def main():
    path = common.path("/tmp/echo_unix_dgram")
    own = path + ".client"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(own)
        try:
            sock.settimeout(5)
            sock.sendto(b"Hello, neighbour!\n", path)
            answer, server = sock.recvfrom(1024)
            print(f"{server} answers:", answer.decode(errors="replace").rstrip())
        finally:
            os.unlink(own)


if __name__ == "__main__":
    main()
