"""An interactive talk: messages appear in capitals, you type the answers.

It talks with one client until that one leaves.

Run it, here on its default address:

    python3 examples/python/talk.py 127.0.0.1 9999

Talk to it from another terminal with `talk_client`, in either language, or
with `nc 127.0.0.1 9999`.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen()
        print("listening on %s:%d" % server.getsockname(), flush=True)

        sock, peer = server.accept()
        with sock:
            print("%s:%d connected" % peer)
            while message := sock.recv(1024):
                print(message.decode(errors="replace").rstrip().upper())
                answer = common.ask("> ")
                if answer is None:
                    break
                # The newline makes even an empty answer one that arrives:
                # sending no bytes sends nothing at all.
                sock.sendall(answer.encode() + b"\n")


if __name__ == "__main__":
    main()
