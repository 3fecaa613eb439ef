"""A UDP client. It sends one datagram and prints the answer.

Start `udp` first, in either language, then run it (the arguments shown are the
defaults):

    python3 examples/python/udp_client.py 127.0.0.1 9999

To act as the server, run `nc -u -l 127.0.0.1 9999` and type the answer.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # A datagram can be lost without an error, and there is no connect that could fail. So the
        # wait is limited.
        sock.settimeout(5)
        sock.sendto(b"hello over udp\n", (host, port))
        answer, server = sock.recvfrom(65535)
        print("%s:%d answers:" % server, answer.decode(errors="replace").rstrip())


if __name__ == "__main__":
    main()
