"""The client of the programs with TLS: sends one greeting and prints the answer.

It trusts the authority of its directory, and the server must be localhost by
name. A `client.pem` that is there is shown to servers that ask for one.

Start `echo_tls`, `tls_by_hand` or `mtls_whoami` first, then run:

    python3 examples/python/tls_client.py 127.0.0.1 8443 certs

To play the server yourself:
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
        # Goodbye in form, and the server's in return.
        sock = sock.unwrap()
        rest = sock.recv(1024)
        print(len(rest), "bytes after that")
        sock.close()


if __name__ == "__main__":
    main()
