"""A TLS server that requires a client certificate and answers with its contents.

It sends each client the name in its certificate and the name of the issuer, and
prints the same. It runs until it is interrupted. A client without a certificate of
the expected authority never reaches the handler.

Make certificates with `make_ca` first, then run it (the arguments shown are the
defaults):

    python3 examples/python/mtls_whoami.py 127.0.0.1 8443 certs

Connect with `tls_client`, in either language, or with
`openssl s_client -connect 127.0.0.1:8443 -CAfile certs/ca.pem -cert certs/client.pem -key certs/client.key`.
"""

import socketserver

import common
import common_tls


def common_name(names):
    return next((value for ((name, value),) in names if name == "commonName"), "?")


class WhoAmI(socketserver.StreamRequestHandler):
    def handle(self):
        certificate = self.request.getpeercert()
        who = common_name(certificate["subject"])
        issuer = common_name(certificate["issuer"])
        print("%s:%d" % self.client_address, f"is {who}, certified by {issuer}", flush=True)
        for _ in self.rfile:
            self.wfile.write(f"you are {who}, certified by {issuer}\n".encode())


class Server(common_tls.TlsMixIn, socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main():
    host, port, directory = common.address_and("127.0.0.1", 8443, "CERTS", "certs")
    Server.context = common_tls.strict_context(directory)
    common_tls.reload_on_sighup(Server.context, directory)
    with Server((host, port), WhoAmI) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
