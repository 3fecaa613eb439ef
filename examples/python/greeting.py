"""A greeting server with a thread for each connection.

It sends `hello!`, then answers `Hello, NAME!` to each line until `exit` or
the end of file. Interrupt it and start it again at once: SO_REUSEADDR, set
before bind, lets it have its port back.

Run it, here on its default address:

    python3 examples/python/greeting.py 127.0.0.1 9999

Talk to it with `greeting_client`, in either language, or with
`nc 127.0.0.1 9999`.
"""

import socket
import threading

import common


def greet(sock, peer):
    with sock, sock.makefile("rb") as lines:
        print("%s:%d connected" % peer)
        sock.sendall(b"hello!\n")
        # A line may come in pieces, or several at once; the file puts them
        # together.
        for line in lines:
            name = line.decode(errors="replace").strip()
            if name == "exit":
                break
            sock.sendall(f"Hello, {name}!\n".encode())
        print("%s:%d left" % peer)


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        # Whoever closes first keeps the address for a minute in TIME_WAIT,
        # and after `exit` that is the server.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen()
        print("listening on %s:%d" % server.getsockname(), flush=True)

        while True:
            sock, peer = server.accept()
            # A daemon thread does not keep an interrupted program alive.
            threading.Thread(target=greet, args=(sock, peer), daemon=True).start()


if __name__ == "__main__":
    main()
