"""An HTTPS server for a browser, which answers every request with the same page.

It is `http_page` with TLS and less of HTTP. It prints the first line of each
request, runs until it is interrupted, and reloads its certificate on SIGHUP.

Make certificates with `make_ca` first, then run it (the arguments shown are the
defaults):

    python3 examples/python/https_page.py 127.0.0.1 8443 certs

Connect with `curl --cacert certs/ca.pem https://127.0.0.1:8443/`, or with a browser
that trusts `certs/ca.pem`.
"""

import socketserver

import common
import common_tls

PAGE = "<!doctype html>\n<title>sockssl</title>\n<h1>Hello, browser, over TLS!</h1>\n"


class Page(socketserver.StreamRequestHandler):
    timeout = 10

    def handle(self):
        # An empty line ends the head, which is limited to 8 KiB.
        first, left = "", 8192
        while line := self.rfile.readline(left):
            left -= len(line)
            first = first or line.decode().rstrip()
            # Empty lines before the request are skipped (RFC 9112, section 2.2).
            if line in (b"\r\n", b"\n") and first:
                break
        # Browsers open connections in advance, and may close them unused.
        if not first:
            return
        print("%s:%d" % self.client_address, first, flush=True)
        answer = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n"
        # Browsers that have visited the page use only https:// from then on.
        answer += "Strict-Transport-Security: max-age=31536000\r\n"
        answer += "Content-Security-Policy: default-src 'self'\r\n"
        answer += "X-Content-Type-Options: nosniff\r\n"
        answer += f"Content-Length: {len(PAGE)}\r\n\r\n"
        answer += "" if first.startswith("HEAD ") else PAGE
        self.wfile.write(answer.encode())


class Server(common_tls.TlsMixIn, socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main():
    host, port, directory = common.address_and("127.0.0.1", 8443, "CERTS", "certs")
    Server.context = common_tls.server_context(directory)
    Server.context.set_alpn_protocols(["http/1.1"])
    common_tls.reload_on_sighup(Server.context, directory)
    with Server((host, port), Page) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
