"""A. The accept path: F01 to F12."""

import contextlib
import os
import re
import resource
import signal
import socket
import statistics
import time
from pathlib import Path

from kit import (
    LIBC, SLACK, TCP, Failed, NotRun, allow_descriptors, as_other_user, check_log, check_spin, check_stop, in_background,
    injected, check_invariants, read_all, read_line, reset, room, row, run_tool, signal_every_thread, strace,
    wait_for, with_descriptors,
)

RESOURCES = ("ENFILE", "ENOMEM", "ENOBUFS")
NETWORK = ("ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "ETIMEDOUT")


def answered(client, limit):
    """Returns whether the client's line is echoed in time."""
    try:
        return read_line(client, limit) == b"hello\n"
    except OSError:
        return False


def count_answered(clients, seconds=1.0):
    until = time.monotonic() + seconds
    return [client for client in clients if answered(client, max(until - time.monotonic(), 0.001))]


@row("F01", "descriptor limit hit", "prlimit --nofile=64, 200 held clients",
     ("threading", "threading-unix", "selector"),
     needs=("prlimit",))
def descriptors_run_out(case, cls):
    server = case.server(cls, wrapper=["prlimit", "--nofile=64"], queue=512, drain=1000, first_byte="off", idle="off")
    with check_invariants(case, server, probing=False):
        clients = [case.connect(server) for _ in range(200)]
        for client in clients:
            client.sendall(b"hello\n")
        served = count_answered(clients)
        case.check(30 <= len(served) <= 60, f"{len(served)} of 200 served, the rest wait")
        check_spin(case, server)
        served[0].sendall(b"hello\n")
        case.check(answered(served[0], 1 + SLACK), "accepted clients are still served")
        # Measures how soon a queued client is accepted after a close.
        waiting = [client for client in clients if client not in served]
        took = []
        for leaving in served[:7]:
            time.sleep(0.3)
            leaving.close()
            begin = time.monotonic()
            poll_until = begin + 2
            while time.monotonic() < poll_until:
                came = [client for client in waiting if answered_now(client)]
                if came:
                    waiting.remove(came[0])
                    break
            took.append(time.monotonic() - begin)
        middle = statistics.median(took)
        case.check(middle < 0.1, f"a queued client is accepted {middle * 1000:.1f} ms after a close (median of {len(took)})")
        for client in clients:
            client.close()
    case.check(len(check_log(case, server)) > 0, "logged")
    check_stop(case, server, 1)


def answered_now(client):
    client.setblocking(False)
    try:
        return client.recv(100) == b"hello\n"
    except OSError:
        return False


@row("F01", "descriptor limit hit while clients come and go", "prlimit --nofile=40, 2 s of churn", 
     ("threading", "selector"), needs=("prlimit",))
def descriptors_run_out_in_churn(case, cls):
    server = case.server(cls, wrapper=["prlimit", "--nofile=40"], queue=512, drain=1000)
    with check_invariants(case, server, probing=False):
        clients = []
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            while len(clients) < 60:
                clients.append(case.connect(server))
                clients[-1].sendall(b"hello\n")
            # The oldest client disconnects, a queued one is accepted, and the limit is hit again.
            clients.pop(0).close()
            time.sleep(0.005)
        for client in clients:
            client.close()
    check_stop(case, server, 1)


@row("F01", "more children than descriptors", "prlimit --nofile=40, 100 held clients, max_children 1000", ("forking",),
     needs=("prlimit",))
def descriptors_do_not_run_out_forking(case, cls):
    # The parent keeps no descriptor of a child.
    server = case.server(cls, wrapper=["prlimit", "--nofile=40"], queue=512, drain=1000, max_children=1000)
    with check_invariants(case, server, probing=False):
        clients = [case.connect(server) for _ in range(100)]
        for client in clients:
            client.sendall(b"hello\n")
        served = count_answered(clients)
        case.check(len(served) == 100, f"{len(served)} of 100 served")
        case.check(server.stats()["rejected"] == 0, "none was rejected")
        check_spin(case, server)
        for client in clients:
            client.close()
    check_stop(case, server, 1)


@row("F01", "descriptor limit hit, forking", "the limit is lowered to what is open, 30 clients, and raised again", ("forking",))
def descriptors_run_out_forking(case, cls):
    server = case.server(cls, queue=512, drain=1000)
    with check_invariants(case, server, probing=False):
        before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        highest = max(int(fd) for fd in os.listdir(f"/proc/{server.pid}/fd"))
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        clients = [case.connect(server) for _ in range(30)]
        for client in clients:
            client.sendall(b"hello\n")
        served = count_answered(clients)
        case.check(len(served) == 0, f"{len(served)} of 30 served, the rest wait")
        check_spin(case, server)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
        served = count_answered(clients, 2 + SLACK)
        case.check(len(served) == 30, f"{len(served)} served when there are descriptors again")
        case.check(server.stats()["rejected"] == 0, "none was rejected")
        for client in clients:
            client.close()
    case.check(len(check_log(case, server)) > 0, "logged")
    check_stop(case, server, 1)


@row("F01", "descriptor limit hit by workers that accept", "prlimit --nofile=40, 30 held clients, 20 workers", ("pool",),
     needs=("prlimit",))
def descriptors_run_out_in_a_pool(case, cls):
    # Each worker has a descriptor for its poller. A worker process does not run out of
    # descriptors, because it has one client.
    server = case.server(cls, wrapper=["prlimit", "--nofile=40"], queue=512, drain=1000, first_byte="off", idle="off")
    with check_invariants(case, server, probing=False):
        clients = [case.connect(server) for _ in range(30)]
        for client in clients:
            client.sendall(b"hello\n")
        served = count_answered(clients)
        case.check(5 <= len(served) < 20, f"{len(served)} of 30 served, the rest wait")
        check_spin(case, server)
        served[0].sendall(b"hello\n")
        case.check(answered(served[0], 1 + SLACK), "accepted clients are still served")
        for client in clients:
            client.close()
    case.check(len(check_log(case, server)) > 0, "logged")
    check_stop(case, server, 1)


@row("F02", "ENFILE, ENOMEM, ENOBUFS from accept for a while", "strace inject accept4 when=3..11", TCP,
     needs=("strace",))
def accept_wants_resources(case, cls):
    # The calls are counted for each thread, so one has to make them all; it cannot
    # accept while it serves the first client.
    alone = cls in ("tcp", "pool", "prefork")
    for error in RESOURCES if cls == "threading" else RESOURCES[:1]:
        wrapper, trace = strace(case, f"accept4:error={error}:when=3..11")
        server = case.server(cls, wrapper=wrapper, drain=1000, workers=1, max_workers=1)
        with contextlib.closing(server.connect(timeout=10)) as client:
            client.sendall(b"hello\n")
            case.check(answered(client, 2), "one client is accepted")
            if alone:
                client.close()
            server.connect(timeout=10).close()
            begin = time.monotonic()
            took = server.probe(6)
            case.note(f"{error}: {injected(trace)} injected, the next client served after {took:.1f} s")
            case.check(injected(trace) == 9, "all nine were injected")
            case.check(time.monotonic() - begin < 2.6 + 1 + SLACK, "backoff from 5 ms, doubling up to 1 s")
            if not alone:
                client.sendall(b"hello\n")
                case.check(answered(client, 1 + SLACK), "accepted clients are still served")
        server.stats()
        case.check(len(check_log(case, server)) > 0, "logged")
        check_stop(case, server, 1)


def use_up(server, trace):
    """Makes every worker use up the calls that succeed. strace counts the calls of each worker,
    including those that find no client."""
    for _ in range(60):
        with contextlib.closing(server.connect()) as client:
            client.sendall(b"hello\n")
            if not answered(client, 0.4) and injected(trace):
                return
    raise Failed("accept succeeds where it should fail")


@row("F02", "ENFILE from accept permanently", "strace inject accept4 when=3+", TCP, needs=("strace",))
def accept_wants_resources_for_ever(case, cls):
    fails_for_ever(case, cls, "ENFILE")


def fails_for_ever(case, cls, error):
    wrapper, trace = strace(case, f"accept4:error={error}:when=3+")
    server = case.server(cls, wrapper=wrapper, drain=1000)
    server.probe(2)
    use_up(server, trace)
    with contextlib.closing(server.connect()):
        time.sleep(0.5)
        check_spin(case, server, 3)
        check_log(case, server)
        check_stop(case, server, 1)


@row("F03", "ECONNABORTED burst", "strace inject accept4 when=2+2", TCP, needs=("strace",))
def aborted_clients(case, cls):
    pass_over(case, cls, "ECONNABORTED", 50)


@row("F04", "network errors pending on the new connection", "strace inject accept4, each of the eight", ("threading",),
     needs=("strace",))
def network_errors(case, cls):
    for error in NETWORK:
        pass_over(case, cls, error, 8)


@row("F04", "EPERM of a firewall, EPROTO", "strace inject accept4", TCP, needs=("strace",))
def protocol_errors(case, cls):
    for error in ("EPERM", "EPROTO"):
        pass_over(case, cls, error, 8)


def pass_over(case, cls, error, clients):
    wrapper, trace = strace(case, f"accept4:error={error}:when=2+2")
    server = case.server(cls, wrapper=wrapper, drain=1000, **room(cls, 2))
    slowest = max(server.probe(1) for _ in range(clients))
    # The loop calls accept once more after the last client.
    until = time.monotonic() + 2
    lost, count = server.stats()["lost_before_accept"], injected(trace)
    while lost != count and time.monotonic() < until:
        time.sleep(0.05)
        lost, count = server.stats()["lost_before_accept"], injected(trace)
    case.check(lost == count and count >= clients // 2,
               f"{error}: {clients} clients served, slowest {slowest * 1000:.0f} ms, {count} injected, {lost} counted")
    check_log(case, server, quiet=True)
    check_stop(case, server, 1)


@row("F04", "every accept fails permanently", "strace inject accept4:error=ECONNABORTED when=3+", TCP,
     needs=("strace",))
def aborted_for_ever(case, cls):
    fails_for_ever(case, cls, "ECONNABORTED")


@row("F05", "many signals", "SIGUSR2 to every thread, some thousand a second", TCP + ("threading-unix",))
def signal_storm(case, cls):
    server = case.server(cls, drain=1000, first_byte=800, read=800, idle=800, write=1200, request=6000)
    sent = [0]

    def storm():
        signal_every_thread(server.pid, signal.SIGUSR2)
        for child in server.children():
            with contextlib.suppress(OSError):
                signal_every_thread(child, signal.SIGUSR2)
        sent[0] += 1
        time.sleep(0.0005)

    with check_invariants(case, server, probing=cls != "tcp"), in_background(storm):
        with contextlib.closing(server.connect()) as client:
            for number in range(200):
                client.sendall(b"line %d\n" % number)
                if read_line(client) != b"line %d\n" % number:
                    raise Failed("a handler noticed the signals")
            client.sendall(b"big 3000000\nbye\n")
            data, error = read_all(client)
            case.check(len(data) == 3_000_000 and error is None, f"{len(data)} bytes arrived")
        for name, words in (("first byte", b""), ("read", b"half a line"), ("between requests", b"whole\n")):
            with contextlib.closing(server.connect()) as client:
                begin = time.monotonic()
                client.sendall(words)
                if words.endswith(b"\n"):
                    # The idle time begins when the first request has ended.
                    read_line(client)
                    began = time.monotonic() - begin
                    case.check(began <= 1 + SLACK, f"answered after {began * 1000:.0f} ms")
                    begin += began
                read_all(client)
                took = time.monotonic() - begin
                case.check(0.75 <= took <= 0.8 + 0.25 + SLACK, f"{name} deadline of 800 ms after {took * 1000:.0f} ms")
        with contextlib.closing(server.connect(rcvbuf=4096)) as client:
            client.sendall(b"big 100000000\n")
            begin = time.monotonic()
            server.wait_for_stats(lambda stats: stats["write"] == 1, 6, "write deadline") if cls != "tcp" else None
            case.note(f"write deadline of 1200 ms after {(time.monotonic() - begin) * 1000:.0f} ms")
    case.note(f"{sent[0]} rounds of signals")
    check_stop(case, server, 1)


@row("F05", "EINTR from every blocking call", "strace inject when=1+2", TCP, needs=("strace",))
def interrupted_calls(case, cls):
    calls = ("accept4", "poll", "epoll_wait", "epoll_pwait", "recvfrom", "sendto", "sendmsg", "recvmsg")
    wrapper, trace = strace(case, *(f"{call}:error=EINTR:when=1+2" for call in calls))
    server = case.server(cls, wrapper=wrapper, drain=1000, first_byte=800)
    for _ in range(20):
        server.probe(1)
    with contextlib.closing(server.connect()) as client:
        begin = time.monotonic()
        read_all(client)
        took = time.monotonic() - begin
        case.check(0.75 <= took <= 0.8 + 0.25 + SLACK, f"first byte deadline of 800 ms after {took * 1000:.0f} ms")
    case.check(injected(trace) > 20, f"20 clients served, {injected(trace)} calls interrupted")
    case.note(f"I1 {server.stats()['finished']} finished")
    check_log(case, server, quiet=True)
    check_stop(case, server, 1)


@row("F06", "clients reset while they wait in the queue", "SO_LINGER 0 and close before accept", TCP)
def reset_in_the_queue(case, cls):
    server = case.server(cls, drain=1000, queue=128)
    with check_invariants(case, server, quiet=True, probing=False):
        server.freeze()
        try:
            for _ in range(100):
                client = server.connect()
                client.sendall(b"hello\n")
                reset(client)
        finally:
            server.thaw()
        stats = server.wait_for_stats(
            lambda stats: stats["accepted"] + stats["lost_before_accept"] >= 101 and stats["in_flight"] == 0, 10, "all 100 accepted")
        case.check(stats["panicked"] == 0 and stats["rejected"] == 0,
                   f"100 resets: {stats['disconnected']} disconnected, {stats['lost_before_accept']} lost, {stats['finished']} finished")
    check_stop(case, server, 1)


@row("F07", "the peer's address cannot be read", "strace inject getpeername:error=ENOTCONN", TCP + ("threading-unix",),
     needs=("strace",))
def no_peer_address(case, cls):
    wrapper, trace = strace(case, "getpeername:error=ENOTCONN")
    server = case.server(cls, wrapper=wrapper, drain=1000)
    with contextlib.closing(server.connect()) as client:
        client.sendall(b"peer\n")
        answer = read_line(client).decode().strip()
        case.check("unknown" in answer, f"{injected(trace)} injected, the handler saw {answer!r}")
    server.probe(1)
    server.stats()
    check_stop(case, server, 1)


@row("F08", "SYN flood", "hping3 -S --flood for 2 s, in its own network namespace", TCP, needs=("hping3", "timeout"),
     netns=True, alone=True)
def syn_flood(case, cls):
    server = case.server(cls, drain=1000)
    with check_invariants(case, server, probing=False, quiet=True):
        with contextlib.closing(server.connect()) as inside:
            command = ["timeout", "2", "hping3", "-q", "-S", "--flood", "-I", "lo", "-p", server.port, "127.0.0.1"]
            output = run_tool(*command, good=(0, 1, 124))
            sent = re.search(r"(\d+) packets transmitted", output)
            inside.sendall(b"hello\n")
            case.check(answered(inside, 1 + SLACK), "accepted clients are still served")
        time.sleep(0.2)
        took = server.probe(1)
        case.note(f"{sent[1] if sent else 'some'} SYNs in 2 s; a probe after it {took * 1000:.0f} ms")
    check_stop(case, server, 1)


def listen_overflows():
    lines = Path("/proc/net/netstat").read_text().splitlines()
    for names, values in zip(lines[::2], lines[1::2]):
        counted = dict(zip(names.split(), values.split()))
        if "ListenOverflows" in counted:
            return int(counted["ListenOverflows"])
    raise NotRun("the kernel does not count overflows")


def pending_connections(port):
    """Connections of a listener that wait for accept(2), or for the end of their handshake."""
    pending = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state, queues = (line.split()[column] for column in (1, 3, 4))
        if int(local.split(":")[1], 16) == port:
            # 0A is a listener, whose receive queue is its accept queue. 03 is SYN-RECV.
            pending += int(queues.split(":")[1], 16) if state == "0A" else state == "03"
    return pending


@row("F08", "backlog overflow", "many connects to a queue of 16, in its own network namespace", TCP, netns=True,
     alone=True)
def backlog_overflow(case, cls):
    count = 5_000 if case.full else 600
    allow_descriptors(count + 1000)
    server = case.server(cls, wrapper=with_descriptors(count + 1000), drain=1000, queue=16, max_children=64,
                         first_byte=500, read=500)
    before = listen_overflows()
    with check_invariants(case, server, probing=False, quiet=True, rss=60):
        clients = []
        server.freeze()
        try:
            for _ in range(count):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(server.where())
                clients.append(client)
            wait_for("a full queue", lambda: listen_overflows() > before)
        finally:
            server.thaw()
        served, left = 0, set(clients)
        until = time.monotonic() + 4
        while left and time.monotonic() < until:
            for client in list(left):
                with contextlib.suppress(BlockingIOError):
                    try:
                        client.send(b"hello\nbye\n")
                        served += read_all(client, 0.2)[0] == b"hello\n"
                    except BlockingIOError:
                        raise
                    except OSError:
                        pass
                    client.close()
                    left.discard(client)
            time.sleep(0.02)
        for client in left:
            client.close()
        overflows = listen_overflows() - before
        case.check(overflows > 0, f"{served} of {count} served within 4 s, {overflows} ListenOverflows in /proc/net/netstat")
        case.check(served >= 16, "the queued clients are served")
        # The kernel has accepted clients that are gone and sent nothing. A sequential server waits
        # for the first byte of each, so a new client is not served at once before that.
        until = time.monotonic() + 30
        while pending_connections(int(server.port)) > 0 and time.monotonic() < until:
            time.sleep(0.02)
        case.check(time.monotonic() < until, "the accept queue is empty within 30 s")
    check_stop(case, server, 1)


@row("F09", "port scan, connect and close", "nmap -sT, -sS, and 500 connects without data", TCP, needs=("nmap",))
def port_scan(case, cls):
    server = case.server(cls, drain=1000)
    scans = 100 if case.full else 4
    with check_invariants(case, server, quiet=True):
        for _ in range(scans):
            for kind in ("-sT", "-sS"):
                output = run_tool("nmap", kind, "-n", "-Pn", "-p", server.port, "127.0.0.1")
                if "open" not in output:
                    raise Failed(f"nmap sees no open port: {output}")
        for _ in range(500):
            server.connect().close()
        stats = server.wait_for_stats(lambda stats: stats["accepted"] >= 500 and stats["in_flight"] <= 1, 10, "all taken")
        case.check(stats["panicked"] + stats["rejected"] == 0, f"{2 * scans} scans, 500 connects")
    check_stop(case, server, 1)


@row("F10", "a thread cannot be created", "prlimit --nproc as an unused user", ("threading", "threading-unix"),
     needs=("setpriv", "prlimit"))
def no_threads(case, cls):
    folder = "/tmp" if cls == "threading-unix" else None
    address = f"{folder}/faults-{os.getpid()}-{time.monotonic_ns()}.sock" if folder else None
    server = case.server(cls, **as_other_user("--nproc=16"), address=address, drain=1000, queue=256)
    with check_invariants(case, server, probing=False):
        clients = [case.connect(server) for _ in range(60)]
        for client in clients:
            with contextlib.suppress(OSError):
                client.sendall(b"hello\n")
        stats = server.wait_for_stats(lambda stats: stats["rejected"] >= 3, 10, "rejected for lack of a thread")
        check_spin(case, server, 3)
        served = count_answered(clients, 0.5)
        case.check(len(served) >= 5, f"{len(served)} served, {server.stats()['rejected']} rejected")
        case.check(stats["panicked"] == 0, "nothing panicked")
        for client in clients:
            client.close()
        time.sleep(1.1)
    case.check(len(check_log(case, server)) > 0, "logged")
    check_stop(case, server, 1)


@row("F10", "a pool that cannot start its threads", "prlimit --nproc=12 as an unused user, 20 workers", ("pool", "selector"),
     needs=("setpriv", "prlimit"))
def no_threads_for_workers(case, cls):
    server = case.server(cls, **as_other_user("--nproc=12"), drain=1000, workers=20, wait=False)
    code = server.process.wait(10)
    output = server.wait_for_line("failed", 2)
    case.check(code == 3 and "WouldBlock" in output, f"serve_forever fails: {output[:100]}")


@row("F10", "no thread for waiting requests", "prlimit --nproc=12 as an unused user, 30 handlers that block for 400 ms",
     ("selector",), needs=("setpriv", "prlimit"))
def no_threads_beside_blocked(case, cls):
    server = case.server(cls, **as_other_user("--nproc=12"), drain=1000, workers=2)
    with check_invariants(case, server, probing=False):
        clients = [case.connect(server) for _ in range(30)]
        for client in clients:
            client.sendall(b"sleep 400\n")
        time.sleep(0.2)
        check_spin(case, server, 0.8)
        answers = [read_line(client, 10) for client in clients]
        case.check(answers == [b"slept\n"] * 30, "all 30 served, some threads at a time")
        for client in clients:
            client.close()
    case.check(len(check_log(case, server)) > 0, "logged")
    check_stop(case, server, 1)


@row("F10", "no thread for the deadlines either", "strace inject clone3:error=EAGAIN when=4+", ("threading",),
     needs=("strace",))
def no_threads_at_all(case, cls):
    # Two threads exist before the first request: for signals and for the test.
    wrapper, trace = strace(case, "clone3:error=EAGAIN:when=3+", "clone:error=EAGAIN:when=3+")
    server = case.server(cls, wrapper=wrapper, drain=1000)
    until = time.monotonic() + 3
    tried = 0
    while time.monotonic() < until:
        with contextlib.closing(server.connect()) as client:
            with contextlib.suppress(OSError):
                client.sendall(b"hello\n")
                read_all(client, 3)
        tried += 1
        time.sleep(0.02)
    stats = server.stats()
    case.check(stats["rejected"] > 0 and stats["panicked"] == 0, f"{tried} clients, {stats['rejected']} rejected")
    check_spin(case, server, 1)
    check_log(case, server)
    check_stop(case, server, 1)


@row("F11", "fork fails", "strace inject clone:error=ENOMEM when=2..4", ("forking", "forking-unix"), needs=("strace",))
def no_forks(case, cls):
    wrapper, trace = strace(case, "clone:error=ENOMEM:when=2..4", "clone3:error=ENOMEM:when=2..4")
    server = case.server(cls, wrapper=wrapper, drain=1000)
    server.probe(2)
    refused = 0
    for _ in range(3):
        with contextlib.closing(server.connect()) as client:
            with contextlib.suppress(OSError):
                client.sendall(b"hello\n")
            refused += read_all(client, 5)[0] == b""
    case.check(refused == 3 and injected(trace) == 3, f"{injected(trace)} injected, {refused} clients closed")
    server.probe(1)
    stats = server.wait_for_stats(lambda stats: stats["in_flight"] == 0, 5, "all ended")
    case.check(stats["rejected"] == 3 and not server.children(), f"{stats['rejected']} rejected, no child left")
    check_log(case, server)
    check_stop(case, server, 1)


@row("F11", "no more processes", "prlimit --nproc=12 as an unused user", ("forking",), needs=("setpriv", "prlimit"))
def no_processes(case, cls):
    server = case.server(cls, **as_other_user("--nproc=12"), drain=1000, max_children=100, queue=256)
    with check_invariants(case, server, probing=False):
        clients = [case.connect(server) for _ in range(40)]
        for client in clients:
            with contextlib.suppress(OSError):
                client.sendall(b"hello\n")
        server.wait_for_stats(lambda stats: stats["rejected"] >= 3, 10, "rejected for lack of a process")
        check_spin(case, server, 3)
        served = count_answered(clients, 0.5)
        case.check(len(served) >= 5, f"{len(served)} served, {server.stats()['rejected']} rejected")
        for client in clients:
            client.close()
        time.sleep(1.1)
    check_stop(case, server, 1)


@row("F11", "workers cannot be forked", "strace inject clone:error=EAGAIN when=2..6", ("prefork",), needs=("strace",))
def no_forks_of_workers(case, cls):
    # strace counts the calls of each process. The parent's calls are its forks.
    wrapper, trace = strace(case, "clone:error=EAGAIN:when=2..6", "clone3:error=EAGAIN:when=2..6")
    server = case.server(cls, wrapper=wrapper, drain=1000, workers=4)
    with check_invariants(case, server):
        server.wait_for_workers(5)
        case.check(injected(trace) >= 5, f"{injected(trace)} injected, then all four workers serve")
    case.check(any("cannot fork a worker" in line for line in server.log_lines()), "logged")
    check_stop(case, server, 1)


@row("F11", "no more processes", "prlimit --nproc=12 as an unused user, 20 workers", ("prefork",),
     needs=("setpriv", "prlimit"))
def fewer_workers(case, cls):
    server = case.server(cls, **as_other_user("--nproc=12"), drain=1000)
    slowest = max(server.probe(1) for _ in range(50))
    case.check(2 <= len(server.children()) < 12, f"{len(server.children())} workers serve, slowest {slowest * 1000:.0f} ms")
    check_spin(case, server, 3)
    case.check(len(check_log(case, server)) > 0, "logged")
    server.probe(1)
    server.stats()
    check_stop(case, server, 1)


def listener_descriptors(server):
    """Returns the descriptors of the server's listeners by port."""
    inodes = {}
    for line in Path(f"/proc/{server.pid}/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        if parts[3] == "0A":
            inodes[f"socket:[{parts[9]}]"] = int(parts[1].split(":")[1], 16)
    found = {}
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            port = inodes.get(os.readlink(entry))
            if port:
                found[port] = int(entry.name)
    return found


def failed(server):
    """Returns the exit status and the error that the server prints."""
    code = server.process.wait(10)
    with server.heard:
        server.heard.wait_for(lambda: "end" in server.lines, 5)
    return code, [line for line in server.lines if line.startswith("failed")]


@row("F12", "the listener is shut down under the loop", "pidfd_getfd(2) and shutdown(2), one of two listeners, then the other", TCP)
def listener_shut_down(case, cls):
    server = case.server(cls, listeners=2, drain=1000)
    descriptors = listener_descriptors(server)
    ports = [int(address.rsplit(":", 1)[1]) for address in server.addresses]

    def shut_down(port):
        # Another process's socket, as gdb's `call shutdown(fd, 2)` would have it.
        pidfd = LIBC.syscall(434, server.pid, 0)
        taken = LIBC.syscall(438, pidfd, descriptors[port], 0)
        os.close(pidfd)
        if taken < 0:
            raise NotRun("pidfd_getfd(2) is not allowed")
        with contextlib.closing(socket.socket(fileno=taken)) as listener:
            listener.shutdown(socket.SHUT_RDWR)

    server.probe(1, which=0)
    server.probe(1, which=1)
    shut_down(ports[0])
    wait_for("a log line", server.log_lines)
    try:
        server.connect(timeout=1, which=0).close()
        raise Failed("the listener still exists")
    except ConnectionRefusedError:
        pass
    server.probe(1, which=1)
    check_spin(case, server)
    lines = check_log(case, server)
    # Each worker process logs it once.
    case.check(1 <= len(lines) <= max(1, server.workers), f"the other listener works; logged: {lines[0].split('] ', 1)[1] if lines else None}")
    shut_down(ports[1])
    code, output = failed(server)
    case.check(code == 3 and output, f"serve_forever fails with the last listener: {output[0][:120] if output else None}")


@row("F12", "the listener's descriptor is invalid", "strace inject accept4:error=EBADF, EINVAL, ENOTSOCK when=3+", TCP,
     needs=("strace",))
def listener_gone(case, cls):
    for error in ("EBADF", "EINVAL", "ENOTSOCK"):
        wrapper, _ = strace(case, f"accept4:error={error}:when=3+")
        server = case.server(cls, wrapper=wrapper, drain=1000)
        server.probe(2)
        # The first two calls of each accepting thread succeed.
        for _ in range(200):
            with contextlib.suppress(OSError):
                server.connect(timeout=2).close()
            if not server.is_alive():
                break
            time.sleep(0.01)
        code, output = failed(server)
        case.check(code == 3 and output, f"{error}: {output[0] if output else server.lines}")
