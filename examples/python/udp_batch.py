"""A UDP server for many datagrams at a time: it takes all that are there, and
answers all of them, in capitals.

Python's socket has no recvmmsg and no sendmmsg, so here each datagram still is a
call of its own; what is left of it is the order: first take all, then answer. It
runs until you interrupt it.

Run it, here on its default address:

    python3 examples/python/udp_batch.py 127.0.0.1 9999

Talk to it with `udp_client`, in either language, or with
`nc -u 127.0.0.1 9999`.
"""

import socket

import common


def receive_batch(sock, most):
    # Waits for the first datagram, and for no other.
    batch = [sock.recvfrom(65535)]
    try:
        while len(batch) < most:
            batch.append(sock.recvfrom(65535, socket.MSG_DONTWAIT))
    except BlockingIOError:
        pass
    return batch


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((host, port))
        print("listening on %s:%d" % server.getsockname(), flush=True)

        while True:
            answers = []
            for data, peer in receive_batch(server, 64):
                print("%s:%d sent:" % peer, data.decode(errors="replace").rstrip())
                answers.append((data.upper(), peer))

            for answer, peer in answers:
                # UDP may lose any datagram, so one that does not go is given up.
                try:
                    server.sendto(answer, peer)
                except OSError:
                    pass


if __name__ == "__main__":
    main()
