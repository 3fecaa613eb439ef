"""The client of the greeting server. Type names to be greeted.

It prints the greetings, and ends after `exit` or at end of input.

Start `greeting` first, in either language, then run it (the arguments shown are the
defaults):

    python3 examples/python/greeting_client.py 127.0.0.1 9999

To act as the server, run `nc -l 127.0.0.1 9999` and type greetings.
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
                # After `exit` no more line follows, only end of file.
                answer = lines.readline()
                if not answer:
                    break
                print(answer.decode(errors="replace").rstrip())


if __name__ == "__main__":
    main()
