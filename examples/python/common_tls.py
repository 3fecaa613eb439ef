"""Shared by the TLS programs: a mixin that adds TLS to any server, and certificates
that are reloaded on SIGHUP.
"""

import os
import signal
import ssl
import threading


class TlsMixIn:
    """Adds TLS to a threading server. A subclass sets the context.

    The handshake runs in the worker, so a client that stalls does not block other
    clients. After ten seconds its connection is closed.
    """

    context = None

    def finish_request(self, request, client_address):
        request.settimeout(10)
        try:
            request = self.context.wrap_socket(
                request, server_side=True, suppress_ragged_eofs=False
            )
        except (ssl.SSLError, TimeoutError, ConnectionError) as err:
            # A failed handshake is usually caused by the client, not by the server.
            print("TLS handshake with %s:%d:" % client_address, err, flush=True)
            return
        with request:
            request.settimeout(None)
            super().finish_request(request, client_address)
            try:
                # Python's close does not send a close_notify.
                request.settimeout(5)
                request.unwrap()
            except OSError:
                pass


def server_context(directory):
    """Returns a server context with `server.pem` and `server.key` of a directory."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file(directory, "server.pem"), file(directory, "server.key"))
    return context


def strict_context(directory):
    """Like `server_context`, and requires clients to have a certificate of the directory's authority."""
    context = server_context(directory)
    context.load_verify_locations(file(directory, "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def file(directory, name):
    return os.path.join(directory, name)


def reload_on_sighup(context, directory):
    """Reloads the certificates on each SIGHUP."""
    # A separate thread, because the main thread is in serve_forever.
    signals = {signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def wait():
        while signal.sigwait(signals):
            try:
                context.load_cert_chain(
                    file(directory, "server.pem"), file(directory, "server.key")
                )
                print("certificates reloaded", flush=True)
            except OSError as err:
                print("certificates kept:", err, flush=True)

    threading.Thread(target=wait, daemon=True).start()
