"""The client of the TLS programs. It sends a greeting and prints the answer.

It trusts the authority in the directory, and requires a server certificate for
localhost. If the directory contains a `client.pem`, it is sent to servers that
request a certificate.

Start `echo_tls`, `tls_by_hand` or `mtls_whoami` first, then run it (the arguments
shown are the defaults):

    python3 examples/python/tls_client.py 127.0.0.1 8443 certs

To act as the server, run
`openssl s_server -accept 8443 -cert certs/server.pem -key certs/server.key`.
"""

import os
import socket
import ssl

import common
import common_tls


def main():
    host, port, directory = common.address_and("127.0.0.1", 8443, "CERTS", "certs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(common_tls.file(directory, "ca.pem"))
    own = common_tls.file(directory, "client.pem")
    if os.path.exists(own):
        context.load_cert_chain(own, common_tls.file(directory, "client.key"))

    sock = socket.create_connection((host, port))
    with context.wrap_socket(
        sock, server_hostname="localhost", suppress_ragged_eofs=False
    ) as sock:
        names = dict(pair for (pair,) in sock.getpeercert()["subject"])
        print("connected with", sock.version(), "to", names["commonName"])

        sock.sendall(b"Hello, world!\n")
        answer = sock.recv(1024)
        print("answer:", answer.decode().rstrip())
        # Sends a close_notify and waits for that of the server.
        sock = sock.unwrap()
        rest = sock.recv(1024)
        print(len(rest), "bytes after the shutdown")
        sock.close()


if __name__ == "__main__":
    main()
