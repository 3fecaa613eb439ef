"""A minimal TCP server with a fixed greeting.

It greets one client, prints the answer, and exits. It handles no errors: the first one
ends the program. `careful` is the same program with complete error handling.

Run it (the arguments shown are the defaults):

    python3 examples/python/fixed.py 127.0.0.1 9999

Connect with `fixed_client`, in either language, or with `nc 127.0.0.1 9999`.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    # One call creates the socket, sets SO_REUSEADDR, binds and listens.
    with socket.create_server((host, port)) as server:
        print("listening on %s:%d" % server.getsockname(), flush=True)

        sock, peer = server.accept()
        with sock:
            print("%s:%d connected" % peer)
            sock.sendall(b"Hello, client!\n")
            answer = sock.recv(1024)
            print("client says:", answer.decode(errors="replace").rstrip())


if __name__ == "__main__":
    main()
