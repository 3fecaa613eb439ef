"""Puts `sock` in the place of what is Python code in Lib/socket.py.

What stays Python's: what depends on Python's own types, such as the mode of a
file object or the class a test has put in place of `socket`.
"""

import io
import os
import socket

import _socket

_half = _socket._python_half
_Socket = socket.socket
_python = {name: getattr(socket, name) for name in ("SocketIO", "create_server", "create_connection", "send_fds", "recv_fds")}
_python |= {name: getattr(_Socket, name) for name in ("_sendfile_use_sendfile", "_sendfile_use_send")}
_DEFAULT = socket._GLOBAL_DEFAULT_TIMEOUT


def _is_plain(sock):
    """No mock, and none that does its own receiving and sending (TLS does)."""
    kind = type(sock)
    return isinstance(sock, _socket.socket) and (kind.recv_into, kind.send) == (_socket.socket.recv_into, _socket.socket.send)


class SocketIO(_python["SocketIO"]):
    """The raw file of makefile."""

    def readinto(self, b):
        if not _is_plain(self._sock):
            return super().readinto(b)
        self._checkClosed()
        self._checkReadable()
        # A reader of `sock` can go on after a timeout; Python's rule is kept here.
        if self._timeout_occurred:
            raise OSError("cannot read from timed out object")
        try:
            return _half.readinto(self._sock, b)
        except TimeoutError:
            self._timeout_occurred = True
            raise
        except BlockingIOError:
            return None

    def write(self, b):
        if not _is_plain(self._sock):
            return super().write(b)
        self._checkClosed()
        self._checkWritable()
        try:
            return _half.write(self._sock, b)
        except BlockingIOError:
            return None


def _check_file(file, count):
    if "b" not in getattr(file, "mode", "b"):
        raise ValueError("file should be opened in binary mode")
    if count is not None and not isinstance(count, int):
        raise TypeError(f"count must be a positive integer (got {count!r})")


def _sendfile_use_sendfile(self, file, offset=0, count=None):
    if not _is_plain(self):
        return _python["_sendfile_use_sendfile"](self, file, offset, count)
    _check_file(file, count)
    # Whether Python calls it a file with a descriptor; `sock` falls back by itself
    # where the system cannot read from it.
    try:
        fileno = file.fileno()
    except (AttributeError, io.UnsupportedOperation) as error:
        raise socket._GiveupOnSendfile(error)
    try:
        os.fstat(fileno)
    except OSError as error:
        raise socket._GiveupOnSendfile(error)
    try:
        return _half.sendfile(self, fileno, offset, count)
    finally:
        # Python's object has a position of its own.
        if hasattr(file, "seek"):
            file.seek(os.lseek(fileno, 0, os.SEEK_CUR))


def _sendfile_use_send(self, file, offset=0, count=None):
    if not _is_plain(self):
        return _python["_sendfile_use_send"](self, file, offset, count)
    _check_file(file, count)
    return _half.sendfile_from(self, file, offset, count)


def sendfile(self, file, offset=0, count=None):
    # Through the object: a class that does its own sending (TLS) has its own.
    try:
        return self._sendfile_use_sendfile(file, offset, count)
    except socket._GiveupOnSendfile:
        return self._sendfile_use_send(file, offset, count)


def create_server(address, *, family=socket.AF_INET, backlog=None, reuse_port=False, dualstack_ipv6=False):
    if socket.socket is not _Socket:
        return _python["create_server"](
            address, family=family, backlog=backlog, reuse_port=reuse_port, dualstack_ipv6=dualstack_ipv6
        )
    # A test takes the attribute away to see this.
    if reuse_port and not hasattr(_socket, "SO_REUSEPORT"):
        raise ValueError("SO_REUSEPORT not supported on this platform")
    return _Socket(*_half.create_server(address, family, backlog, bool(reuse_port), bool(dualstack_ipv6)))


def create_connection(address, timeout=_DEFAULT, source_address=None, *, all_errors=False):
    host, port = address
    if socket.socket is not _Socket or not isinstance(host, (str, bytes)) or not isinstance(port, int):
        return _python["create_connection"](address, timeout, source_address, all_errors=all_errors)
    given = () if timeout is _DEFAULT else (timeout,)
    parts, failed = _half.create_connection(host, port, source_address, *given)
    if parts is None:
        try:
            if all_errors:
                raise ExceptionGroup("create_connection failed", failed)
            raise failed[-1]
        finally:
            del failed
    sock = _Socket(*parts)
    if given:
        sock.settimeout(timeout)
    return sock


def send_fds(sock, buffers, fds, flags=0, address=None):
    if not _is_plain(sock):
        return _python["send_fds"](sock, buffers, fds, flags, address)
    return _half.send_fds(sock, buffers, list(fds), flags, address)


def recv_fds(sock, bufsize, maxfds, flags=0):
    if not _is_plain(sock):
        return _python["recv_fds"](sock, bufsize, maxfds, flags)
    return _half.recv_fds(sock, bufsize, maxfds, flags)


socket.SocketIO = SocketIO
for _method in (_sendfile_use_sendfile, _sendfile_use_send, sendfile):
    setattr(_Socket, _method.__name__, _method)
for _function in (create_server, create_connection, send_fds, recv_fds):
    setattr(socket, _function.__name__, _function)
_socket._replaced = True
