"""A chat server in one thread, based on `selectors`.

It forwards what a client sends to all other clients, and prints who joins and
leaves. No call blocks, so a client whose send buffer is full is disconnected.
`chat` does the same with a thread for each client.

Run it (the arguments shown are the defaults):

    python3 examples/python/chat_polling.py 127.0.0.1 9999

Connect with `nc 127.0.0.1 9999` in several terminals.
"""

import selectors
import socket

import common


def broadcast(room, data, sender):
    """Sends data to all clients except its sender, and returns the clients to
    which it could not be sent completely."""
    failed = []
    for sock in room:
        if sock is not sender:
            try:
                whole = sock.send(data) == len(data)
            except OSError:
                whole = False
            if not whole:
                failed.append(sock)
    return failed


def main():
    host, port = common.address("127.0.0.1", 9999)
    listener = socket.create_server((host, port))
    listener.setblocking(False)
    print("listening on %s:%d" % listener.getsockname(), flush=True)

    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    room = {}
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            if sock is listener:
                sock, address = listener.accept()
                sock.setblocking(False)
                selector.register(sock, selectors.EVENT_READ)
                print("%s:%d joins" % address, flush=True)
                room[sock] = address
                continue
            if sock not in room:
                continue
            try:
                data = sock.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            for gone in broadcast(room, data, sock) if data else [sock]:
                print("%s:%d leaves" % room.pop(gone), flush=True)
                selector.unregister(gone)
                gone.close()


if __name__ == "__main__":
    main()
