"""A UDP server that processes datagrams in batches, and sends them back in capitals.

Python's socket has neither recvmmsg nor sendmmsg, so each datagram still takes a
call of its own in each direction. It prints each datagram, and runs until it is
interrupted.

Run it (the arguments shown are the defaults):

    python3 examples/python/udp_batch.py 127.0.0.1 9999

Connect with `udp_client`, in either language, or with `nc -u 127.0.0.1 9999`.
"""

import socket

import common


def receive_batch(sock, most):
    # Waits for the first datagram, but not for more.
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
                # UDP does not guarantee delivery, so a datagram that cannot be sent is skipped.
                try:
                    server.sendto(answer, peer)
                except OSError:
                    pass


if __name__ == "__main__":
    main()
