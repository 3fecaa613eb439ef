"""An echo server in one thread, after the example in Python's `selectors` documentation.

The data of each key is the function to call when its socket is ready. The server
prints each client and what it receives.

Run it (the arguments shown are the defaults):

    python3 examples/python/echo_select.py 127.0.0.1 9999

Connect with `nc 127.0.0.1 9999` in several terminals.
"""

import selectors
import socket

import common


def accept(sel, sock):
    conn, addr = sock.accept()  # should be ready
    print("accepted %s:%d" % addr, flush=True)
    conn.setblocking(False)
    sel.register(conn, selectors.EVENT_READ, read)


def read(sel, conn):
    try:
        data = conn.recv(1000)  # should be ready
    except OSError:
        data = b""  # a connection that was reset has ended
    print("received %d bytes" % len(data), flush=True)
    try:
        # It hopes that the send need not wait, as the original does.
        if data:
            conn.send(data)
            return
    except OSError:
        pass
    print("closing", flush=True)
    sel.unregister(conn)
    conn.close()


def main():
    sock = socket.create_server(common.address("127.0.0.1", 9999))
    sock.setblocking(False)
    print("listening on %s:%d" % sock.getsockname(), flush=True)

    sel = selectors.DefaultSelector()
    sel.register(sock, selectors.EVENT_READ, accept)
    while True:
        for key, _mask in sel.select():
            key.data(sel, key.fileobj)


if __name__ == "__main__":
    main()
