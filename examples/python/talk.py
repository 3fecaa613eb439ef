"""An interactive server that prints each message in capitals. You type the answers.

It serves one client until that client disconnects.

Run it (the arguments shown are the defaults):

    python3 examples/python/talk.py 127.0.0.1 9999

Connect from another terminal with `talk_client`, in either language, or with
`nc 127.0.0.1 9999`.
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
                # With the newline even an empty answer is sent. Sending zero bytes sends nothing.
                sock.sendall(answer.encode() + b"\n")


if __name__ == "__main__":
    main()
