"""A file server: waits for a hello, then sends a file in parts of 1024 bytes.

It serves one client, prints the number of bytes sent, and exits. The end of the
connection marks the end of the file, so no length is sent.

Run it (the arguments shown are the defaults):

    python3 examples/python/file_transfer.py 127.0.0.1 9999 README.md

Receive the file with `file_transfer_client`, in either language, or with
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
            while part := file.read(1024):
                sock.sendall(part)
                sent += len(part)
            print(f"sent {sent} bytes")


if __name__ == "__main__":
    main()
