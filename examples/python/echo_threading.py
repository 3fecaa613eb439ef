"""The newcomer's server: a threaded echo in a dozen lines.

It runs until you interrupt it, and prints how to talk to it.

Run it, here on its default address:

    python3 examples/python/echo_threading.py 127.0.0.1 9999

Talk to it with `echo_tcp_client`, in either language, with
`nc 127.0.0.1 9999`, or from Python, as the server says when it starts.
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
        # The address as the system gave it: port 0 asks for a free one.
        host, port = server.server_address
        print(f"echo is listening on {host}:{port}, a thread for each connection")
        print(f"talk to it: nc {host} {port}")
        print("or in Python:")
        print("    import socket")
        print(f'    sock = socket.create_connection(("{host}", {port}))')
        print('    sock.sendall(b"hello\\n")')
        print("    print(sock.recv(1024))", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
