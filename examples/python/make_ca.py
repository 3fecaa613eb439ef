"""A private authority for trying TLS out, and certificates of it.

Writes into a directory: `ca.pem` with its `ca.key`, `server.pem` for localhost,
127.0.0.1 and ::1, and `client.pem` for a client called ada, each with its key.
What is there already is written anew. Python itself makes no certificates, so
this calls openssl.

Run it, here with its default directory:

    python3 examples/python/make_ca.py certs

The other programs of TLS take the same directory. Look at what it made:
`openssl x509 -in certs/server.pem -noout -text`.
"""

import os
import subprocess

import common

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def request(directory, name, subject, days, *extensions):
    """A certificate and its key; without an issuer among the words its own."""
    file = os.path.join(directory, name)
    words = ["-subj", f"/CN={subject}", "-days", str(days)]
    words += ["-keyout", f"{file}.key", "-out", f"{file}.pem"]
    for extension in extensions:
        words += ["-addext", extension]
    # The key of this process' user alone.
    os.umask(0o077)
    return ["req", "-x509", *KEY, *words]


def main():
    directory = common.path("certs")
    os.makedirs(directory, exist_ok=True)
    ca = os.path.join(directory, "ca")
    constraints = "basicConstraints=critical,CA:TRUE,pathlen:0"
    usage = "keyUsage=critical,keyCertSign,cRLSign"
    config = os.path.join(directory, "openssl.cnf")
    # Without its defaults, which would add constraints of their own.
    with open(config, "w") as file:
        file.write("[req]\ndistinguished_name = name\n[name]\n")
    openssl(*request(directory, "ca", "Example CA", 3650, constraints, usage), "-config", config)
    issuer = ["-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-config", config]
    hosts = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
    for name, subject, extensions in (
        ("server", "localhost", [hosts, "extendedKeyUsage=serverAuth"]),
        ("client", "ada", ["extendedKeyUsage=clientAuth"]),
    ):
        usage = "keyUsage=critical,digitalSignature"
        openssl(*request(directory, name, subject, 90, usage, *extensions), *issuer)
        print(f"{os.path.join(directory, name)}.pem: {subject}")
    os.remove(config)
    print(f"trust it: {ca}.pem")


if __name__ == "__main__":
    main()
