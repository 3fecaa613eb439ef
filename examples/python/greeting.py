"""A greeting server with a thread for each connection.

It sends `hello!`, and answers each line with `Hello, NAME!` until `exit` or end of
file. It prints who connects and leaves. It can be restarted immediately on the same
port, because it sets SO_REUSEADDR before bind.

Run it (the arguments shown are the defaults):

    python3 examples/python/greeting.py 127.0.0.1 9999

Connect with `greeting_client`, in either language, or with `nc 127.0.0.1 9999`.
"""

import socket
import threading

import common


def greet(sock, peer):
    with sock, sock.makefile("rb") as lines:
        print("%s:%d connected" % peer)
        sock.sendall(b"hello!\n")
        # A line may arrive in parts, or several lines at once. The file reassembles them.
        for line in lines:
            name = line.decode(errors="replace").strip()
            if name == "exit":
                break
            sock.sendall(f"Hello, {name}!\n".encode())
        print("%s:%d left" % peer)


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        # The side that closes first keeps the address in TIME_WAIT for a minute. After `exit`
        # that is the server.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen()
        print("listening on %s:%d" % server.getsockname(), flush=True)

        while True:
            sock, peer = server.accept()
            # A daemon thread does not keep an interrupted program running.
            threading.Thread(target=greet, args=(sock, peer), daemon=True).start()


if __name__ == "__main__":
    main()
