"""The client of the interactive talk. Type a message, and the answer is printed.

It ends after `q`, at end of input, or when the server disconnects.

Start `talk` in another terminal first, in either language, then run it (the
arguments shown are the defaults):

    python3 examples/python/talk_client.py 127.0.0.1 9999

To act as the server, run `nc -l 127.0.0.1 9999` and type answers.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect((host, port))
        while (message := common.ask("> ")) not in (None, "q"):
            # With the newline even an empty message is sent. Sending zero bytes sends nothing.
            sock.sendall(message.encode() + b"\n")
            answer = sock.recv(1024)
            if not answer:
                break
            print(answer.decode(errors="replace").rstrip())


if __name__ == "__main__":
    main()
