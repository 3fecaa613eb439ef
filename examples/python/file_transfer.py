"""File transfer: waits for a hello, then sends a file in 1024-byte pieces.

It serves one client and ends. The end of the connection is the end of the
file, so the file is not preceded by a length.

Run it, here on its default address and with its default file:

    python3 examples/python/file_transfer.py 127.0.0.1 9999 README.md

Fetch the file with `file_transfer_client`, in either language, or with
`echo hello | nc 127.0.0.1 9999 > copy`.
"""

import socket

import common


def main():
    host, port, path = common.address_and("127.0.0.1", 9999, "FILE", "README.md")
    try:
        file = open(path, "rb")
    except OSError as err:
        common.refuse(f"FILE '{path}' cannot be opened: {common.named(err)}")

    with file, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen()
        print("listening on %s:%d" % server.getsockname(), flush=True)

        sock, peer = server.accept()
        with sock:
            hello = sock.recv(1024).decode(errors="replace").rstrip()
            print("%s:%d says:" % peer, hello)
            sent = 0
            while piece := file.read(1024):
                sock.sendall(piece)
                sent += len(piece)
            print(f"sent {sent} bytes")


if __name__ == "__main__":
    main()
