"""Three clients at once, for the servers that serve many.

All connect before the first one speaks, and the last to come speaks first: a
server that served one client after the other would leave it waiting.

Start `threads`, `threads_by_hand`, `forks` or `forks_by_hand` first, in
either language, then run:

    python3 examples/python/many_clients.py 127.0.0.1 9999

With `nc 127.0.0.1 9999` in three terminals you can do the same.
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
            sys.exit(f"client {number} was answered wrongly")


if __name__ == "__main__":
    main()
