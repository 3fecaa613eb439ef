"""B. Slow and hostile clients: F13 to F23."""

import contextlib
import os
import random
import socket
import ssl
import threading
import time

from kit import (
    SLACK, STREAM, TCP, THREADS, Failed, NotRun, allow_descriptors, check_log, check_spin, check_stop, closed_after,
    in_background, check_invariants, read_all, read_line, reset, room, row, run_tool, with_descriptors,
)

IPPROTO_TCP, TCP_REPAIR = socket.IPPROTO_TCP, 19


def check_deadline(case, name, took, limit, earliest=None):
    """Checks that a deadline expires at most a quarter of a second late."""
    earliest = limit - 0.02 if earliest is None else earliest
    case.check(took is not None and earliest <= took <= limit + 0.25 + SLACK,
               f"{name} deadline of {limit * 1000:.0f} ms: closed after {'never' if took is None else f'{took * 1000:.0f} ms'}")


@row("F13", "silent clients", "connects that send nothing", STREAM)
def silent(case, cls):
    # A sequential server serves one after another.
    count, limit = (2, 0.5) if cls == "tcp" else (20, 0.7)
    server = case.server(cls, first_byte=int(limit * 1000), drain=1000, **room(cls, 30))
    with check_invariants(case, server, probing=cls != "tcp", quiet=True):
        clients = [case.connect(server) for _ in range(count)]
        closed = closed_after(clients, 5)
        check_deadline(case, f"{count} x first byte", min(closed, key=lambda took: took or 99), limit, limit - 0.1)
        check_deadline(case, "the last one's", closed[-1], limit * (count if cls == "tcp" else 1), 0)
        stats = server.wait_for_stats(lambda stats: stats["first_byte"] >= count, 3, "the deadline was counted")
        case.check(stats["first_byte"] == count, f"{stats['first_byte']} counted")
    check_stop(case, server, 1)


@row("F13", "ncat with its input held", "ncat HOST PORT < an empty pipe", ("threading",), needs=("ncat",))
def silent_ncat(case, cls):
    import subprocess

    server = case.server(cls, first_byte=600, drain=1000)
    with check_invariants(case, server, quiet=True):
        begin = time.monotonic()
        tool = subprocess.Popen(["ncat", "127.0.0.1", str(server.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        tool.stdout.read()
        took = time.monotonic() - begin
        tool.stdin.close()
        tool.kill()
        tool.wait()
        check_deadline(case, "first byte", took, 0.6)
    check_stop(case, server, 1)


@row("F13", "endless handshakes, and no descriptors for their deadlines", "prlimit --nofile=60, 80 clients that send a byte each 250 ms",
     ("threading", "selector"), needs=("prlimit",))
def handshakes_without_descriptors(case, cls):
    # Each handshake is ended at its deadline, and those that could not be are refused: so
    # another client is served soon after, while all of them go on sending.
    server = case.server(cls, wrapper=["prlimit", "--nofile=60"], handshake=1, wrap=800, queue=512, drain=300)
    with check_invariants(case, server, probing=False):
        clients = [case.connect(server) for _ in range(80)]
        begin, open_clients = time.monotonic(), list(clients)
        while open_clients and time.monotonic() < begin + 8:
            for client in list(open_clients):
                try:
                    client.sendall(b"x")
                    client.setblocking(False)
                    if client.recv(10) == b"":
                        open_clients.remove(client)
                except BlockingIOError:
                    pass
                except OSError:
                    open_clients.remove(client)
                finally:
                    client.setblocking(True)
            time.sleep(0.25)
        case.check(not open_clients, f"{len(open_clients)} of 80 still open after {time.monotonic() - begin:.1f} s")
        stats = server.wait_for_stats(lambda stats: stats["in_flight"] == 0, 3, "none in flight")
        case.check(stats["wrap"] > 10, f"{stats['wrap']} ended at the deadline")
        case.check(stats["wrap"] + stats["rejected"] == 80, f"{stats['rejected']} refused")
        check_spin(case, server)
    case.check(len(check_log(case, server)) > 0, "logged")
    # A drain ends them too.
    clients = [case.connect(server) for _ in range(20)]
    for client in clients:
        client.sendall(b"x")
    server.wait_for_stats(lambda stats: stats["in_flight"] == 20, 10, "all are being served")
    drained = check_stop(case, server, 0.3, code=1)
    case.check(cls == "selector" or int(drained["aborted"]) == 20, f"{drained['aborted']} of 20 aborted")


@row("F14", "one byte at a time, each in time", "own script: a byte every 150 ms", STREAM)
def slowloris(case, cls):
    server = case.server(cls, first_byte=1000, read=1000, request=1500, drain=1000)
    with check_invariants(case, server, probing=cls != "tcp", quiet=True):
        clients = [case.connect(server) for _ in range(1 if cls == "tcp" else 10)]
        begin = time.monotonic()
        left = list(clients)
        took = []
        while left and time.monotonic() < begin + 6:
            for client in list(left):
                try:
                    client.sendall(b"x")
                    client.setblocking(False)
                    if client.recv(10) == b"":
                        raise ConnectionError
                except BlockingIOError:
                    client.settimeout(5)
                except OSError:
                    took.append(time.monotonic() - begin)
                    left.remove(client)
            time.sleep(0.15)
        case.check(not left, f"{len(took)} of {len(clients)} closed")
        check_deadline(case, "request", max(took), 1.5 + 0.15, 1.4)
        stats = server.wait_for_stats(lambda stats: stats["request"] == len(clients), 3, "the deadline was counted")
        case.note(f"{stats['request']} counted")
    check_stop(case, server, 1)


@row("F14", "slow headers, slow bodies", "slowhttptest -H and -B, 100 connections", TCP[1:],
     needs=("slowhttptest",))
def slow_http(case, cls):
    server = case.server(cls, first_byte=1000, read=1000, idle=1000, request=1500, drain=1000, max_children=200,
                         **room(cls, 130))
    seconds = 20 if case.full else 4
    with check_invariants(case, server):
        for kind in ("-H", "-B"):
            output = run_tool("slowhttptest", kind, "-c", 100, "-r", 100, "-i", 1, "-l", seconds, "-u",
                            f"http://127.0.0.1:{server.port}/", limit=seconds + 30, good=(0, 1, 255))
            if "slow" not in output:
                raise NotRun(f"slowhttptest: {output[-100:]}")
        stats = server.wait_for_stats(lambda stats: stats["in_flight"] <= 1, 5, "all gone")
        case.check(stats["accepted"] >= 100, f"{stats['accepted']} accepted, {stats['idle'] + stats['request']} timed out")
    check_stop(case, server, 1)


@row("F15", "never reads the answer", "tiny SO_RCVBUF, asks for 100 MB", STREAM)
def never_reads(case, cls):
    server = case.server(cls, write=800, drain=1000)
    with check_invariants(case, server, probing=cls != "tcp", rss=15, quiet=True):
        clients = [case.connect(server, rcvbuf=4096) for _ in range(1 if cls == "tcp" else 5)]
        for client in clients:
            client.sendall(b"big 100000000\n")
        begin = time.monotonic()
        if cls == "tcp":
            server.probe(4)
        server.wait_for_stats(lambda stats: stats["write"] == len(clients), 6, "write deadline")
        # The deadline restarts with each partial send: docs/reliability.md.
        took = time.monotonic() - begin
        case.check(0.5 <= took <= 3 * 0.8 + 0.25 + SLACK, f"write deadline of 800 ms for each send: closed after {took * 1000:.0f} ms")
        for client in clients:
            client.close()
    check_stop(case, server, 1)


@row("F16", "half close after the request", "shutdown(SHUT_WR), the answer is 5 MB", STREAM)
def half_close(case, cls):
    server = case.server(cls, drain=1000)
    with check_invariants(case, server, probing=cls != "tcp", quiet=True):
        with contextlib.closing(server.connect()) as client:
            client.sendall(b"all 5000000\n" + b"x" * 100_000)
            client.shutdown(socket.SHUT_WR)
            time.sleep(0.2)
            data, error = read_all(client)
            case.check(data.startswith(b"read 100000\n") and len(data) == 5_000_012 and error is None,
                       f"{len(data)} bytes, then {error or 'end of file'}")
    check_stop(case, server, 1)


@row("F16", "half close by ncat", "echo hello | ncat", TCP, needs=("ncat",))
def half_close_ncat(case, cls):
    server = case.server(cls, drain=1000)
    output = run_tool("sh", "-c", f"printf 'hello' | ncat 127.0.0.1 {server.port}", limit=10)
    case.check(output == "hello\n", f"answer {output!r}")
    check_stop(case, server, 1)


@row("F17", "closes with unread input", "10 MB the handler ignores", STREAM)
def unread_input(case, cls):
    server = case.server(cls, drain=1000)
    with check_invariants(case, server, probing=cls != "tcp", quiet=True):
        good = 0
        for _ in range(5):
            with contextlib.closing(server.connect()) as client:
                data, error = post(client, b"ignore 300000\n", 10_000_000)
                good += len(data) == 300_000 and error is None
        case.check(good == 5, f"{good} of 5 answers of 300,000 bytes whole")
    check_stop(case, server, 1)


@row("F17", "closes while the client sends one byte at a time", "a byte each 20 ms, the answer is read slowly", STREAM)
def unread_trickle(case, cls):
    server = case.server(cls, drain=1000)
    with check_invariants(case, server, probing=cls != "tcp", bound=2.5):
        with contextlib.closing(server.connect(rcvbuf=8192)) as client:
            client.sendall(b"ignore 800000\n")
            stopping = threading.Event()

            def trickle():
                with contextlib.suppress(OSError):
                    while not stopping.wait(0.02):
                        client.sendall(b"x")

            thread = threading.Thread(target=trickle)
            thread.start()
            parts, error = 0, None
            try:
                while data := client.recv(65536):
                    parts += len(data)
                    time.sleep(0.005)
            except OSError as reason:
                error = reason
            stopping.set()
            thread.join()
            case.check(parts == 800_000, f"{parts} of 800,000 bytes, then {error or 'end of file'}")
    check_stop(case, server, 1)


def post(client, head, length):
    """Sends a long body while reading the response, like HTTP clients."""
    client.settimeout(10)

    def body():
        with contextlib.suppress(OSError):
            client.sendall(head + b"x" * length)

    thread = threading.Thread(target=body)
    thread.start()
    got = read_all(client)
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    return got


@row("F17", "refused with unread input", "max 1, refuse, the client sends first",
     ("threading", "forking", "selector", "pool"))
def refused_with_input(case, cls):
    server = case.server(cls, drain=1000, max=1, refuse=1)
    with contextlib.closing(server.connect()) as inside:
        inside.sendall(b"hello\n")
        read_line(inside)
        good, last = 0, None
        for _ in range(30):
            server.freeze()
            client = server.connect()
            client.sendall(b"a line that is not read\n")
            server.thaw()
            data, last = read_all(client)
            good += data == b"busy\n" and last is None
            client.close()
        case.check(good == 30, f"{good} of 30 refused with a message and without a reset; the last: {last or 'end of file'}")
        server.wait_for_stats(lambda stats: stats["rejected"] == 30, 5, "all counted")
    check_stop(case, server, 1)


@row("F18", "resets in the middle of requests", "SO_LINGER 0, thousands", TCP, alone=True)
def resets(case, cls):
    count = 10_000 if case.full else 1_500
    server = case.server(cls, drain=1000, queue=512)
    with check_invariants(case, server, quiet=True, bound=2.0, rss=40):
        for number in range(count):
            # Several source addresses of 127/8, because one has not enough ports.
            client = server.connect(source=f"127.0.{number % 7}.{1 + number % 200}")
            client.sendall((b"big 100000\n", b"hello\n", b"half a", b"all 10\nxx")[number % 4])
            reset(client)
        stats = server.wait_for_stats(lambda stats: stats["in_flight"] <= 1, 20, "all gone")
        case.check(stats["panicked"] == 0, f"{count} resets: {stats['disconnected']} disconnected, {stats['finished']} finished")
    check_stop(case, server, 1)


@row("F19", "a peer that becomes unreachable", "nft drop in its own network namespace", TCP, needs=("nft",), netns=True, alone=True)
def vanished(case, cls):
    server = case.server(cls, idle=700, read=1000, write=700, first_byte=700, drain=1000)
    run_tool("nft", "add table inet t")
    run_tool("nft", "add chain inet t drops { type filter hook input priority 0; }")
    for name, words in (("first_byte", b""), ("read", b"half a line"), ("idle", b"whole\n"), ("write", b"big 100000000\n")):
        accepted = server.stats()["accepted"]
        client = server.connect(rcvbuf=4096)
        port = client.getsockname()[1]
        client.sendall(words)
        if name == "idle":
            read_line(client)
        else:
            server.wait_for_stats(lambda stats: stats["accepted"] > accepted, 10, "accepted")
        for side in ("sport", "dport"):
            run_tool("nft", "add", "rule", "inet", "t", "drops", "tcp", side, port, "drop")
        begin = time.monotonic()
        if cls == "tcp":
            server.probe(4)
        server.wait_for_stats(lambda stats: stats[name] == 1 and stats["in_flight"] == 0, 5, f"{name} deadline")
        took = time.monotonic() - begin
        case.check(took <= {"write": 2.1, "read": 1.0}.get(name, 0.7) + 0.25 + SLACK, f"{name} deadline of {1000 if name == 'read' else 700} ms: slot free after {took * 1000:.0f} ms")
        client.close()
    server.probe(1)
    check_log(case, server, quiet=True)
    check_stop(case, server, 1)


def hello_of_tls(server):
    """A TLS client on a plain port."""
    with server.connect(timeout=2) as client:
        context = ssl.create_default_context()
        with contextlib.suppress(OSError):
            context.wrap_socket(client, server_hostname="example.org").close()


@row("F20", "garbage, binary, a TLS hello", "random bytes, ssl on a plain port", STREAM)
def garbage(case, cls):
    server = case.server(cls, drain=1000, first_byte=1000, read=1000, idle=1000)
    noise = random.Random(20)
    with check_invariants(case, server, probing=cls != "tcp", rss=30):
        for number in range(60):
            with contextlib.suppress(OSError), server.connect() as client:
                client.sendall(noise.randbytes(noise.randrange(1, 200_000)))
                client.shutdown(socket.SHUT_WR)
                read_all(client, 5)
        for _ in range(3):
            if server.kind == "tcp":
                hello_of_tls(server)
        stats = server.wait_for_stats(lambda stats: stats["in_flight"] <= 1, 5, "all gone")
        case.check(stats["panicked"] == 0 and stats["failed"] + stats["disconnected"] > 30,
                   f"{stats['failed']} failed, {stats['disconnected']} disconnected, none panicked")
    check_stop(case, server, 1)


@row("F21", "a line without an end", "100 MB (--full: 1 GB) without a newline", STREAM)
def endless_line(case, cls):
    server = case.server(cls, drain=1000)
    most = 1_000_000_000 if case.full else 100_000_000
    with check_invariants(case, server, probing=cls != "tcp", rss=15):
        with contextlib.closing(server.connect()) as client:
            sent, block = 0, b"x" * (1 << 20)
            begin = time.monotonic()
            try:
                while sent < most:
                    sent += client.send(block)
            except OSError as error:
                case.note(f"{type(error).__name__} after {sent / 1e6:.0f} MB, {time.monotonic() - begin:.1f} s")
        stats = server.wait_for_stats(lambda stats: stats["failed"] == 1, 5, "the handler's limit")
        case.note(f"{stats['failed']} failed")
    lines = check_log(case, server)
    case.check(any("too long" in line for line in lines), "the error is logged")
    check_stop(case, server, 1)


def open_many(server, count, words=b"hello\n"):
    clients = []
    for number in range(count):
        clients.append(server.connect(source=f"127.0.{number % 50}.{1 + number // 50 % 250}"))
        if words:
            with contextlib.suppress(OSError):
                clients[-1].sendall(words)
    return clients


@row("F22", "idle connections up to the limit, the rest wait", "own opener over many 127/8 addresses", TCP[1:],
     alone=True)
def idle_and_waiting(case, cls):
    most = 2_000 if case.full else 300
    if cls == "prefork":
        # A process each.
        most = 300 if case.full else 60
    allow_descriptors(most + 2000)
    limits = with_descriptors(2 * most + 100)
    server = case.server(cls, wrapper=limits, max=most, max_children=most, queue=1024, drain=2000,
                         **room(cls, most + 10))
    with check_invariants(case, server, probing=False, rss=100, settle=20):
        clients = open_many(server, most + 200)
        stats = server.wait_for_stats(lambda stats: stats["in_flight"] >= most, 20, "full")
        time.sleep(0.3)
        stats = server.stats()
        case.check(stats["in_flight"] == most, f"exactly {stats['in_flight']} of {most + 200} are in flight")
        check_spin(case, server)
        for client in clients[:50]:
            client.close()
        server.wait_for_stats(lambda stats: stats["accepted"] >= most + 50, 5, "the next fifty are accepted")
        case.check(server.stats()["in_flight"] <= most, "at most the limit in flight")
        for client in clients:
            client.close()
    check_stop(case, server, 2)


@row("F22", "idle connections up to the limit, the rest refused", "own opener over many 127/8 addresses",
     THREADS + ("pool",), alone=True)
def idle_and_refused(case, cls):
    offered, most = (10_000, 8_000) if case.full else (1_500, 1_000)
    # A pool with that many workers, and some more that refuse.
    extra = {"workers": most + 20} if cls == "pool" else {}
    allow_descriptors(offered + 2000)
    server = case.server(cls, wrapper=with_descriptors(2 * offered + 1000), max=most, refuse=1, queue=4096,
                         idle="off", drain=3000, **extra)
    with check_invariants(case, server, probing=False, rss=most * 0.06 + 30, settle=30):
        begin = server.sample()["rss"]
        clients = open_many(server, offered)
        stats = server.wait_for_stats(lambda stats: stats["accepted"] >= offered + 1, 60, "all accepted")
        stats = server.wait_for_stats(lambda stats: stats["idle_now"] == most, 30, f"{most} idle")
        each = (server.sample()["rss"] - begin) / most / 1024
        case.check(stats["in_flight"] == most and stats["rejected"] == offered - most,
                   f"{stats['in_flight']} in flight at {each:.1f} KiB each, {stats['rejected']} refused")
        check_spin(case, server)
        output = [client for client in clients[most:] if answer_or_none(client) == b"busy\n"]
        case.check(len(output) >= (offered - most) * 0.99, f"{len(output)} got the refusal")
        for client in clients:
            client.close()
        server.wait_for_stats(lambda stats: stats["in_flight"] == 0, 30, "all gone")


def answer_or_none(client):
    with contextlib.suppress(OSError):
        return read_line(client, 2)
    return None


@row("F22", "a drain closes idle connections at once", "SIGTERM beside 1000 idle (--full: 8000)", THREADS, alone=True)
def idle_and_drained(case, cls):
    most = 8_000 if case.full else 1_000
    allow_descriptors(most + 2000)
    server = case.server(cls, wrapper=with_descriptors(most + 1000), queue=4096, idle="off", drain=20000)
    clients = open_many(server, most)
    server.wait_for_stats(lambda stats: stats["idle_now"] == most, 60, "all idle")
    drained = check_stop(case, server, 20, limit=1.5 + most / 2000)
    case.check(int(drained["idle"]) == most and drained["aborted"] == "0", f"{drained['idle']} idle connections closed")
    for client in clients:
        client.close()


@row("F23", "one address takes all slots", "200 from one source, the probe from another; per_ip=20", TCP[1:])
def one_address(case, cls):
    server = case.server(cls, per_ip=20, max=100, drain=1000, max_children=100, **room(cls, 60))
    with check_invariants(case, server, quiet=True):
        clients = [server.connect(source="127.0.0.99") for _ in range(200)]
        for client in clients:
            with contextlib.suppress(OSError):
                client.sendall(b"hello\n")
        stats = server.wait_for_stats(lambda stats: stats["rejected"] == 180, 10, "180 refused")
        case.check(stats["in_flight"] <= 21, "20 in flight, 180 refused, others served")
        for client in clients:
            client.close()
    check_stop(case, server, 1)


@row("F20", "several requests in one segment", "three lines at once, then the end; ten times", STREAM)
def together(case, cls):
    server = case.server(cls, drain=1000)
    with check_invariants(case, server, probing=cls != "tcp", quiet=True):
        for number in range(10):
            with contextlib.closing(server.connect()) as client:
                if number % 2:
                    # The handler was called and waits for more data.
                    client.sendall(b"first\n")
                    read_line(client)
                client.sendall(b"one\ntwo\nthree\nbye\n")
                data, error = read_all(client, 2)
                case.check(data == b"one\ntwo\nthree\n" and error is None, f"{len(data)} bytes, then {error or 'end of file'}")
    check_stop(case, server, 1)
