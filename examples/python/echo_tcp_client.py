"""The client of the echo servers. It sends a greeting and prints the answer.

Start a server such as `echo_tcp` or `echo_threading` first, then run it (the
arguments shown are the defaults):

    python3 examples/python/echo_tcp_client.py 127.0.0.1 9999

To act as the server, run `nc -l 127.0.0.1 9999` and type the answer.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect((host, port))
        # send may send only a part of the data. sendall sends everything.
        sock.sendall(b"Hello, world!\n")
        answer = sock.recv(1024)
        print("answer:", answer.decode(errors="replace").rstrip())


if __name__ == "__main__":
    main()
