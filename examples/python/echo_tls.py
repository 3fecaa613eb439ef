"""An echo server over TLS. The mixin that it uses adds TLS to any server.

It serves each connection in a thread until it is interrupted, and prints the
address and the TLS version of each client. On SIGHUP it reloads its certificate for
new connections.

Make certificates with `make_ca` first, then run it (the arguments shown are the
defaults):

    python3 examples/python/echo_tls.py 127.0.0.1 8443 certs

Connect with `tls_client`, in either language, or with
`openssl s_client -connect 127.0.0.1:8443 -CAfile certs/ca.pem`.
"""

import socketserver

import common
import common_tls


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        address = "%s:%d" % self.client_address
        print(address, "connected with", self.request.version(), flush=True)
        for line in self.rfile:
            self.wfile.write(line)


class Server(common_tls.TlsMixIn, socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main():
    host, port, directory = common.address_and("127.0.0.1", 8443, "CERTS", "certs")
    Server.context = common_tls.server_context(directory)
    common_tls.reload_on_sighup(Server.context, directory)
    with Server((host, port), Echo) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
