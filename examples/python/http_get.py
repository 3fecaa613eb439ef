"""A minimal HTTP client. It fetches a page and prints its status and its body.

Start `http_page` first, in either language, then run it (the arguments shown are
the defaults):

    python3 examples/python/http_get.py 127.0.0.1 8000 /

It works with any plain HTTP server. To act as the server, run
`nc -l 127.0.0.1 8000` and type `HTTP/1.0 200 OK`, an empty line and a page.
"""

import socket

import common


def main():
    host, port, target = common.address_and("127.0.0.1", 8000, "PATH", "/")
    with socket.create_connection((host, port)) as sock:
        # In HTTP/1.0 the end of the connection marks the end of the page.
        request = f"GET {target} HTTP/1.0\r\nHost: {host}\r\n\r\n"
        sock.sendall(request.encode())
        with sock.makefile("rb") as file:
            print("status:", file.readline().decode("latin-1").rstrip())
            # The headers end with an empty line.
            while file.readline() not in (b"", b"\n", b"\r\n"):
                pass
            print(file.read().decode(errors="replace"), end="")


if __name__ == "__main__":
    main()
