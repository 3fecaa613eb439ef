"""A UDP server that sends each datagram back in capitals.

It needs neither listen nor accept. One socket serves all clients, and each datagram
contains the address for the answer. It prints each datagram, and runs until it is
interrupted.

Run it (the arguments shown are the defaults):

    python3 examples/python/udp.py 127.0.0.1 9999

Connect with `udp_client`, in either language, or with `nc -u 127.0.0.1 9999`.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((host, port))
        print("listening on %s:%d" % server.getsockname(), flush=True)

        while True:
            # Data that does not fit into the buffer is lost, so the buffer has the maximum size
            # of a datagram.
            data, peer = server.recvfrom(65535)
            print("%s:%d sent:" % peer, data.decode(errors="replace").rstrip())
            server.sendto(data.upper(), peer)


if __name__ == "__main__":
    main()
