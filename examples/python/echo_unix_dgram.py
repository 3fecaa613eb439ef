"""An echo server for one Unix datagram, with UnixDatagramServer.

It prints the datagram, sends it back, removes the path and exits. If an interrupted
run has left the path behind, bind fails with EADDRINUSE. Remove the path by hand
then.

Run it (the arguments shown are the defaults):

    python3 examples/python/echo_unix_dgram.py /tmp/echo_unix_dgram

Connect with `echo_unix_dgram_client`, in either language, or with
`nc -u -U /tmp/echo_unix_dgram`.
"""

import os
import socketserver

import common


class Echo(socketserver.DatagramRequestHandler):
    def handle(self):
        text = self.packet.decode(errors="replace").rstrip()
        print(f"{self.client_address} sent:", text)
        # Everything that is written here is sent as one datagram at the end.
        self.wfile.write(self.packet)


def main():
    path = common.path("/tmp/echo_unix_dgram")
    with socketserver.UnixDatagramServer(path, Echo) as server:
        # Closing a socket does not remove the path that bind created.
        try:
            print("listening on", server.server_address, flush=True)
            # Serves one request, whereas serve_forever would continue.
            server.handle_request()
        finally:
            os.unlink(path)


if __name__ == "__main__":
    main()
