"""The client of `wrote`, which opens a new connection for each line that you type.

It prints the answers, and ends after `q` or at end of input.

Start `wrote` in another terminal first, in either language, then run it (the
arguments shown are the defaults):

    python3 examples/python/wrote_client.py 127.0.0.1 9999

To act as the server for one line, run `nc -l 127.0.0.1 9999`.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    while (line := common.ask("> ")) not in (None, "q"):
        # The server reads once and answers once, so each line needs a new connection.
        with socket.create_connection((host, port)) as sock:
            sock.sendall(line.encode() + b"\n")
            answer = sock.recv(1024)
            print(answer.decode(errors="replace").rstrip())


if __name__ == "__main__":
    main()
