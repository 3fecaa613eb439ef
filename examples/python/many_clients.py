"""Three concurrent clients for the servers that serve several at once.

All of them connect before the first one sends a line, and the last one sends first.
A server that serves one client at a time would never answer it. Each answer is
printed.

Start `threads`, `threads_by_hand`, `forks` or `forks_by_hand` first, in either
language, then run it (the arguments shown are the defaults):

    python3 examples/python/many_clients.py 127.0.0.1 9999

`nc 127.0.0.1 9999` in three terminals does the same by hand.
"""

import socket
import sys

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    clients = []
    for number in (1, 2, 3):
        clients.append((number, socket.create_connection((host, port))))

    for number, sock in reversed(clients):
        line = f"hello from client {number}\n"
        sock.sendall(line.encode())
        with sock, sock.makefile("rb") as lines:
            answer = lines.readline().decode()
        print(f"client {number}:", answer.rstrip())
        if answer != line.upper():
            sys.exit(f"client {number} received a wrong answer")


if __name__ == "__main__":
    main()
