"""A chat in one thread, over `selectors`.

What one client says all the others hear. No call waits: a client that cannot
take a piece at once is dropped. `chat` is the same with a thread for each.

Run it, here on its default address:

    python3 examples/python/chat_polling.py 127.0.0.1 9999

Talk to it with `nc 127.0.0.1 9999` from several terminals.
"""

import selectors
import socket

import common


def tell(room, piece, speaker):
    """Gives a piece to everybody but the one it is from, and returns who
    cannot take it."""
    failed = []
    for sock in room:
        if sock is not speaker:
            try:
                whole = sock.send(piece) == len(piece)
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
                piece = sock.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                piece = b""
            for gone in tell(room, piece, sock) if piece else [sock]:
                print("%s:%d leaves" % room.pop(gone), flush=True)
                selector.unregister(gone)
                gone.close()


if __name__ == "__main__":
    main()
