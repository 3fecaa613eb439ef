"""The client of the greeting server: type names, be greeted.

It ends with `exit` or at the end of the input.

Start `greeting` first, in either language, then run:

    python3 examples/python/greeting_client.py 127.0.0.1 9999

To play the server yourself: `nc -l 127.0.0.1 9999`, and greet in lines.
"""

import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.create_connection((host, port)) as sock:
        with sock.makefile("rb") as lines:
            print(lines.readline().decode(errors="replace").rstrip())
            while (name := common.ask("> ")) is not None:
                sock.sendall(name.encode() + b"\n")
                # After `exit` there is no line any more, only the end.
                answer = lines.readline()
                if not answer:
                    break
                print(answer.decode(errors="replace").rstrip())


if __name__ == "__main__":
    main()
