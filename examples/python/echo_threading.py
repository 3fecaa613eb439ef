"""A threaded echo server in a dozen lines, for a first start.

It runs until it is interrupted, and prints how to connect to it.

Run it (the arguments shown are the defaults):

    python3 examples/python/echo_threading.py 127.0.0.1 9999

Connect with `echo_tcp_client`, in either language, with `nc 127.0.0.1 9999`, or
from Python with the lines that the server prints.
"""

import socketserver

import common


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main():
    host, port = common.address("127.0.0.1", 9999)
    with Server((host, port), Echo) as server:
        # The actual address. With port 0 the system chooses a free port.
        host, port = server.server_address
        print(f"echo is listening on {host}:{port}, a thread for each connection")
        print(f"connect with: nc {host} {port}")
        print("or in Python:")
        print("    import socket")
        print(f'    sock = socket.create_connection(("{host}", {port}))')
        print('    sock.sendall(b"hello\\n")')
        print("    print(sock.recv(1024))", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
