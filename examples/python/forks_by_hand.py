"""A process for each client, forked by hand.

Each line comes back in capitals. `forks` is the same server in the words of
socketserver. It runs until you interrupt it. The Rust twin cannot fork this
simply and starts its own program anew instead; its header says why.

Run it, here on its default address:

    python3 examples/python/forks_by_hand.py 127.0.0.1 9999

Talk to it with `many_clients`, in either language, or with
`nc 127.0.0.1 9999` from several terminals at once.
"""

import os
import socket

import common


def serve(sock):
    peer = sock.getpeername()
    with sock, sock.makefile("rb") as lines:
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            # A forked child ends without flushing what is still buffered.
            print("%s:%d:" % peer, text, flush=True)
            sock.sendall(line.upper())


def main():
    host, port = common.address("127.0.0.1", 9999)
    children = set()
    with socket.create_server((host, port)) as server:
        print("listening on %s:%d" % server.getsockname(), flush=True)
        while True:
            sock, _ = server.accept()
            # A child that has ended stays a zombie until it is asked about.
            children -= {pid for pid in children if os.waitpid(pid, os.WNOHANG)[0]}

            pid = os.fork()
            if pid == 0:
                try:
                    server.close()
                    serve(sock)
                finally:
                    # Not sys.exit: the rest of the program is the parent's.
                    os._exit(0)
            children.add(pid)
            # The child has its own copy; were this one left open, the client
            # would never see the end of file.
            sock.close()


if __name__ == "__main__":
    main()
