"""The client of the Unix stream echo. It sends a greeting and prints the answer.

Start `echo_unix` first, in either language, then run it (the arguments shown are
the defaults):

    python3 examples/python/echo_unix_client.py /tmp/echo_unix

To act as the server, run `nc -l -U /tmp/echo_unix` and type the answer.
"""

import socket

import common


def main():
    path = common.path("/tmp/echo_unix")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(path)
        sock.sendall(b"Hello, neighbour!\n")
        answer = sock.recv(1024)
        print("answer:", answer.decode(errors="replace").rstrip())


if __name__ == "__main__":
    main()
