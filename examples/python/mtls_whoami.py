"""Who are you? A server whose clients have to show a certificate tells them
what it says.

It runs until you interrupt it. Who shows none, or one of another authority,
never gets to the handler.

Make certificates with `make_ca` first, then run it, here on its default address
and with its default directory of certificates:

    python3 examples/python/mtls_whoami.py 127.0.0.1 8443 certs

Talk to it with `tls_client`, in either language, or with
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
        print("%s:%d" % self.client_address, f"is {who}, says {issuer}", flush=True)
        for _ in self.rfile:
            self.wfile.write(f"you are {who}, says {issuer}\n".encode())


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
