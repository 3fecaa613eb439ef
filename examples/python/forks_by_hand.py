"""A server with a process for each client, without socketserver.

It prints each line and sends it back in capitals, until it is interrupted. `forks`
is the same server with socketserver. The Rust program starts itself again instead
of forking. Its header explains why.

Run it (the arguments shown are the defaults):

    python3 examples/python/forks_by_hand.py 127.0.0.1 9999

Connect with `many_clients`, in either language, or with `nc 127.0.0.1 9999` in
several terminals.
"""

import os
import socket

import common


def serve(sock):
    peer = sock.getpeername()
    with sock, sock.makefile("rb") as lines:
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            # A forked child exits without flushing buffered output.
            print("%s:%d:" % peer, text, flush=True)
            sock.sendall(line.upper())


def main():
    host, port = common.address("127.0.0.1", 9999)
    children = set()
    with socket.create_server((host, port)) as server:
        print("listening on %s:%d" % server.getsockname(), flush=True)
        while True:
            sock, _ = server.accept()
            # A child that has exited stays a zombie until it is waited for.
            children -= {pid for pid in children if os.waitpid(pid, os.WNOHANG)[0]}

            pid = os.fork()
            if pid == 0:
                try:
                    server.close()
                    serve(sock)
                finally:
                    # sys.exit would run the parent's cleanup in the child.
                    os._exit(0)
            children.add(pid)
            # The child has its own copy. If this one stayed open, the client would never receive
            # an end of file.
            sock.close()


if __name__ == "__main__":
    main()
