"""An echo server with a pool of four threads for all clients.

socketserver has no such class, so the program implements it.

Run it (the arguments shown are the defaults):

    python3 examples/python/echo_pool.py 127.0.0.1 9999

Connect with `echo_tcp_client`, in either language, or with `nc 127.0.0.1 9999` in
several terminals. The fifth client waits until another one disconnects.
"""

import concurrent.futures
import socketserver

import common


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class Server(socketserver.TCPServer):
    allow_reuse_address = True

    def __init__(self, *args):
        self.pool = concurrent.futures.ThreadPoolExecutor(4)
        super().__init__(*args)

    def process_request(self, request, client_address):
        self.pool.submit(self.serve, request, client_address)

    def serve(self, request, client_address):
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)


def main():
    host, port = common.address("127.0.0.1", 9999)
    with Server((host, port), Echo) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
