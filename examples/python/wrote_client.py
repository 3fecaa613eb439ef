"""The client of `wrote`: opens a new connection for each line you type.

It ends with `q` or at the end of the input.

Start `wrote` in another terminal first, in either language, then run:

    python3 examples/python/wrote_client.py 127.0.0.1 9999

To play the server yourself, for one line: `nc -l 127.0.0.1 9999`.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    while (line := common.ask("> ")) not in (None, "q"):
        # The server reads once and answers once, so a connection is good
        # for one line only.
        with socket.create_connection((host, port)) as sock:
            sock.sendall(line.encode() + b"\n")
            answer = sock.recv(1024)
            print(answer.decode(errors="replace").rstrip())


if __name__ == "__main__":
    main()
