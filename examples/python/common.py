"""What the programs share: their arguments, a typed line, an error's name.

Address and port are optional positional arguments everywhere. A wrong one is
answered with a single line that names it, and with exit code 2.
"""

import errno
import os
import socket
import sys


def address(host, port):
    """HOST and PORT from the command line, or these."""
    given = _given("HOST", "PORT")
    return _host(given, host), _port(given, port)


def address_and(host, port, name, value):
    """HOST, PORT and a third argument called NAME, or these."""
    given = _given("HOST", "PORT", name)
    return _host(given, host), _port(given, port), given.get(name, value)


def path(value):
    """PATH from the command line, or this."""
    return _given("PATH").get("PATH", value)


def ask(prompt):
    """A line typed by the user, or None at the end of the input."""
    try:
        return input(prompt)
    except EOFError:
        # The terminal still stands behind the prompt.
        print()
        return None


def named(err):
    """An error by the name of its errno, as in `ECONNREFUSED, errno 111`."""
    if isinstance(err, socket.gaierror):
        # getaddrinfo has names and numbers of its own.
        for name in dir(socket):
            if name.startswith("EAI_") and getattr(socket, name) == err.errno:
                return f"{name}, getaddrinfo error {err.errno}"
    if err.errno in errno.errorcode:
        return f"{errno.errorcode[err.errno]}, errno {err.errno}"
    # A time-out, for one, comes from no system call and has no errno.
    return str(err)


def refuse(complaint):
    """Says what is wrong in one line and ends the program."""
    print(f"{_program()}: {complaint}", file=sys.stderr)
    sys.exit(2)


def _program():
    return os.path.splitext(os.path.basename(sys.argv[0]))[0]


def _given(*names):
    """The arguments by name; more of them than names are refused."""
    usage = f"usage: {_program()} [{' ['.join(names)}{']' * len(names)}"
    words = sys.argv[1:]
    if words and words[0].startswith("-"):
        refuse(f"unexpected option '{words[0]}'; {usage}")
    if len(words) > len(names):
        refuse(f"unexpected argument '{words[len(names)]}'; {usage}")
    return dict(zip(names, words))


def _host(given, default):
    return given.get("HOST", default)


def _port(given, default):
    word = given.get("PORT")
    if word is None:
        return default
    if word.isascii() and word.isdigit() and len(word) < 6 and int(word) < 65536:
        return int(word)
    refuse(f"PORT must be a number from 0 to 65535, not '{word}'")
