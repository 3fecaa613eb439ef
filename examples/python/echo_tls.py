"""The echo over TLS: any server becomes one of TLS by one mixin.

It runs until you interrupt it, a thread for each connection. On SIGHUP it reads
its certificate anew: new connections get the new one.

Make certificates with `make_ca` first, then run it, here on its default address
and with its default directory of certificates:

    python3 examples/python/echo_tls.py 127.0.0.1 8443 certs

Talk to it with `tls_client`, in either language, or with
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
