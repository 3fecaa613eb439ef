"""The usual example of Python's `ssl` module: listen, accept, wrap, echo.

It serves one connection without the server classes, prints the TLS version and the
data it receives, and exits.

Make certificates with `make_ca` first, then run it (the arguments shown are the
defaults):

    python3 examples/python/tls_by_hand.py 127.0.0.1 8443 certs

Connect with `tls_client`, in either language, or with
`openssl s_client -connect 127.0.0.1:8443 -CAfile certs/ca.pem`.
"""

import socket
import ssl

import common
import common_tls


def main():
    host, port, directory = common.address_and("127.0.0.1", 8443, "CERTS", "certs")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(
        common_tls.file(directory, "server.pem"), common_tls.file(directory, "server.key")
    )

    with socket.create_server((host, port)) as server:
        print("listening on %s:%d" % server.getsockname(), flush=True)
        sock, address = server.accept()
        with context.wrap_socket(sock, server_side=True) as conn:
            print("%s:%d" % address, "connected with", conn.version())
            while data := conn.recv(1024):
                print("got:", data.decode().rstrip())
                conn.sendall(data)
            # Sends a close_notify, which Python's shutdown and close do not.
            conn.unwrap().shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
