"""An echo server with a selector, in which idle clients occupy no thread.

socketserver has no such class, so the program uses `selectors`. The handler is
called with the received data and must not block.

Run it (the arguments shown are the defaults):

    python3 examples/python/echo_selector.py 127.0.0.1 9999

Connect with `echo_tcp_client`, in either language, or with `nc 127.0.0.1 9999` in
several terminals.
"""

import selectors
import socket

import common


def main():
    host, port = common.address("127.0.0.1", 9999)
    selector = selectors.DefaultSelector()
    with socket.create_server((host, port)) as server:
        print("listening on %s:%d" % server.getsockname(), flush=True)
        selector.register(server, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is server:
                    connection, _ = server.accept()
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                try:
                    data = key.fileobj.recv(4096)
                    key.fileobj.sendall(data)
                except ConnectionError:
                    data = b""
                if not data:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
