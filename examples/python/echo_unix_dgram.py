"""Echo of one Unix-domain datagram, by UnixDatagramServer.

It answers one datagram, removes the path and ends. A path left behind by an
interrupted run makes bind fail with EADDRINUSE; remove it by hand.

Run it, here on its default path:

    python3 examples/python/echo_unix_dgram.py /tmp/echo_unix_dgram

Talk to it with `echo_unix_dgram_client`, in either language, or with
`nc -u -U /tmp/echo_unix_dgram`.
"""

import os
import socketserver

import common


class Echo(socketserver.DatagramRequestHandler):
    def handle(self):
        text = self.packet.decode(errors="replace").rstrip()
        print(f"{self.client_address} sent:", text)
        # What is written here goes back as one datagram in the end.
        self.wfile.write(self.packet)


def main():
    path = common.path("/tmp/echo_unix_dgram")
    with socketserver.UnixDatagramServer(path, Echo) as server:
        # Closing a socket does not remove the path that bind has made.
        try:
            print("listening on", server.server_address, flush=True)
            # One request, where serve_forever would go on.
            server.handle_request()
        finally:
            os.unlink(path)


if __name__ == "__main__":
    main()
