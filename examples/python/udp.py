"""A UDP server: answers each datagram with its text in capitals.

There is no listen and no accept: one socket serves all, and each datagram
brings the address to answer to. It runs until you interrupt it.

Run it, here on its default address:

    python3 examples/python/udp.py 127.0.0.1 9999

Talk to it with `udp_client`, in either language, or with
`nc -u 127.0.0.1 9999`.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((host, port))
        print("listening on %s:%d" % server.getsockname(), flush=True)

        while True:
            # What does not fit is lost with the rest of its datagram, so the
            # buffer takes the longest there can be.
            data, peer = server.recvfrom(65535)
            print("%s:%d sent:" % peer, data.decode(errors="replace").rstrip())
            server.sendto(data.upper(), peer)


if __name__ == "__main__":
    main()
