"""An echo server over TCP.

It prints the address of its client and the data it receives, and sends the data
back. It serves one client and exits.

Run it (the arguments shown are the defaults):

    python3 examples/python/echo_tcp.py 127.0.0.1 9999

Connect with `echo_tcp_client`, in either language, or with `nc 127.0.0.1 9999`.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        # Without this the port would be in use for a minute after a restart.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen()
        # With port 0 the system chooses a free port. This prints it.
        print("listening on %s:%d" % server.getsockname(), flush=True)

        sock, peer = server.accept()
        with sock:
            print("%s:%d connected" % peer)
            # recv returns no data only if the peer has closed its side.
            while data := sock.recv(1024):
                print("got:", data.decode(errors="replace").rstrip())
                sock.sendall(data)


if __name__ == "__main__":
    main()
