"""Shared by the example programs: arguments, typed input, names of errors.

Address and port are optional positional arguments of every program. With
`--help` the program prints its usage and exits with code 0. For an invalid
argument it prints one line and exits with code 2.
"""

import errno
import os
import socket
import sys


def address(host, port):
    """Returns HOST and PORT from the command line, or the defaults."""
    given = _given(HOST=host, PORT=port)
    return _host(given, host), _port(given, port)


def address_and(host, port, name, value):
    """Returns HOST, PORT and a third argument called NAME, or the defaults."""
    host, port, (third,) = address_and_more(host, port, [(name, value)])
    return host, port, third


def address_and_more(host, port, more):
    """Returns HOST, PORT and more arguments, each with a name and a default."""
    given = _given(**{"HOST": host, "PORT": port, **dict(more)})
    return _host(given, host), _port(given, port), [given.get(name, value) for name, value in more]


def path(value):
    """Returns PATH from the command line, or the default."""
    return _given(PATH=value).get("PATH", value)


def ask(prompt):
    """Prompts for a line, and returns it, or None at end of input."""
    try:
        return input(prompt)
    except EOFError:
        # The cursor is still after the prompt.
        print()
        return None


def named(err):
    """Returns the name and the number of an error, such as `ECONNREFUSED, errno 111`."""
    if isinstance(err, socket.gaierror):
        # Errors of getaddrinfo have their own names and numbers.
        for name in dir(socket):
            if name.startswith("EAI_") and getattr(socket, name) == err.errno:
                return f"{name}, getaddrinfo error {err.errno}"
    if err.errno in errno.errorcode:
        return f"{errno.errorcode[err.errno]}, errno {err.errno}"
    # A timeout, for example, is not an error of a system call and has no errno.
    return str(err)


def refuse(message):
    """Prints one line and exits with code 2."""
    print(f"{_program()}: {message}", file=sys.stderr)
    sys.exit(2)


def _program():
    return os.path.splitext(os.path.basename(sys.argv[0]))[0]


def _given(**defaults):
    """Returns the arguments by name. More arguments than names are an error."""
    names = list(defaults)
    usage = f"usage: {_program()} [{' ['.join(names)}{']' * len(names)}"
    words = sys.argv[1:]
    if "--help" in words or "-h" in words:
        print(usage)
        print("defaults:", *defaults.values())
        sys.exit(0)
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
