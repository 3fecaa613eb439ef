"""The client of the interactive talk: type a message, see the answer.

It ends with `q`, at the end of the input, or when the server leaves.

Start `talk` in another terminal first, in either language, then run:

    python3 examples/python/talk_client.py 127.0.0.1 9999

Any peer that answers in lines will do: `nc -l 127.0.0.1 9999` is one.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect((host, port))
        while (message := common.ask("> ")) not in (None, "q"):
            # The newline makes even an empty message one that arrives:
            # sending no bytes sends nothing at all.
            sock.sendall(message.encode() + b"\n")
            answer = sock.recv(1024)
            if not answer:
                break
            print(answer.decode(errors="replace").rstrip())


if __name__ == "__main__":
    main()
