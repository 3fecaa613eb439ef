"""The client of the echo servers: sends one greeting and prints the answer.

Start one of the servers first (`echo_tcp` or `echo_threading`), then run:

    python3 examples/python/echo_tcp_client.py 127.0.0.1 9999

To play the server yourself: `nc -l 127.0.0.1 9999`, and type the answer.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect((host, port))
        # send may take only a part of the bytes; sendall goes on to the end.
        sock.sendall(b"Hello, world!\n")
        answer = sock.recv(1024)
        print("answer:", answer.decode(errors="replace").rstrip())


if __name__ == "__main__":
    main()
