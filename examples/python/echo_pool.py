"""An echo over a pool: four threads, however many clients.

socketserver has no such class; this is the one its users write.

Run it, here on its default address:

    python3 examples/python/echo_pool.py 127.0.0.1 9999

Talk to it with `echo_tcp_client`, in either language, or with
`nc 127.0.0.1 9999` from several terminals at once:
the fifth waits until one of the others goes.
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
