"""Creates a private certificate authority and certificates for testing TLS.

It writes `ca.pem`, `server.pem` for localhost, 127.0.0.1 and ::1, and `client.pem`
for a client named ada into a directory, each with its key in a `.key` file.
Existing files are replaced. It prints the names of the files. Python cannot create
certificates, so it calls openssl.

Run it (the arguments shown are the defaults):

    python3 examples/python/make_ca.py certs

The other TLS programs take the same directory. To view a certificate, run
`openssl x509 -in certs/server.pem -noout -text`.
"""

import os
import subprocess

import common

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def request(directory, name, subject, days, *extensions):
    """Creates a certificate and its key, self-signed by default."""
    file = os.path.join(directory, name)
    words = ["-subj", f"/CN={subject}", "-days", str(days)]
    words += ["-keyout", f"{file}.key", "-out", f"{file}.pem"]
    for extension in extensions:
        words += ["-addext", extension]
    # Only the owner may read the key.
    os.umask(0o077)
    return ["req", "-x509", *KEY, *words]


def main():
    directory = common.path("certs")
    os.makedirs(directory, exist_ok=True)
    ca = os.path.join(directory, "ca")
    constraints = "basicConstraints=critical,CA:TRUE,pathlen:0"
    usage = "keyUsage=critical,keyCertSign,cRLSign"
    config = os.path.join(directory, "openssl.cnf")
    # A separate configuration, because the default one would add constraints.
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
    print(f"authority to trust: {ca}.pem")


if __name__ == "__main__":
    main()
