"""Echo over TCP: the server says who connected and what it got, and returns it.

It serves one client and ends.

Run it, here on its default address:

    python3 examples/python/echo_tcp.py 127.0.0.1 9999

Talk to it with `echo_tcp_client`, in either language, or with
`nc 127.0.0.1 9999`.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        # Without this a restart within a minute finds the port still in use.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen()
        # Port 0 asks the system for a free one; here is which it gave.
        print("listening on %s:%d" % server.getsockname(), flush=True)

        sock, peer = server.accept()
        with sock:
            print("%s:%d connected" % peer)
            # recv returns nothing only when the peer has closed its side.
            while data := sock.recv(1024):
                print("got:", data.decode(errors="replace").rstrip())
                sock.sendall(data)


if __name__ == "__main__":
    main()
