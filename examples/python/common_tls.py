"""What the programs with TLS share: a mixin that makes any server one of TLS,
and certificates that are read anew on SIGHUP.
"""

import os
import signal
import ssl
import threading


class TlsMixIn:
    """Makes a threading server one of TLS; a subclass has a context.

    The handshake runs in the worker: a client that stalls holds nobody else up,
    and after ten seconds it is closed.
    """

    context = None

    def finish_request(self, request, client_address):
        request.settimeout(10)
        try:
            request = self.context.wrap_socket(
                request, server_side=True, suppress_ragged_eofs=False
            )
        except (ssl.SSLError, TimeoutError, ConnectionError) as err:
            # What strangers do to a port in the open is no fault of the server.
            print("TLS handshake with %s:%d:" % client_address, err, flush=True)
            return
        with request:
            request.settimeout(None)
            super().finish_request(request, client_address)
            try:
                # Python's close says no goodbye.
                request.settimeout(5)
                request.unwrap()
            except OSError:
                pass


def server_context(directory):
    """A server's context with `server.pem` and `server.key` of a directory."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file(directory, "server.pem"), file(directory, "server.key"))
    return context


def strict_context(directory):
    """The same, and clients have to show a certificate of the directory's authority."""
    context = server_context(directory)
    context.load_verify_locations(file(directory, "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def file(directory, name):
    return os.path.join(directory, name)


def reload_on_sighup(context, directory):
    """Reads the certificates anew at each SIGHUP."""
    # A thread of its own, since the main one sits in serve_forever.
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
