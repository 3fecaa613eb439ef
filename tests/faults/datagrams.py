"""F. Datagrams: F47, in its parts."""

import contextlib
import socket
import time
from pathlib import Path

from kit import SLACK, Failed, NotRun, check_log, check_spin, check_stop, check_invariants, row, run_tool

UDP = ("udp", "threading-udp", "forking-udp")


def ask(client, packet, limit=2.0):
    client.settimeout(limit)
    client.send(packet)
    return client.recv(70_000)


def probe(server, limit=1 + SLACK):
    with contextlib.closing(server.connect()) as client:
        begin = time.monotonic()
        try:
            answer = ask(client, b"probe\n", limit)
        except OSError as error:
            raise Failed(f"I2: a probe got {error!r}") from error
        if answer != b"probe\n":
            raise Failed(f"I2: a probe was answered {answer!r}")
        return time.monotonic() - begin


def settled(case, server, accepted=0):
    server.wait_for_stats(
        lambda stats: stats["in_flight"] == 0 and stats["accepted"] >= accepted, 20, "all received and ended")


@row("F47", "datagrams that are too long", "9,000 bytes where 1,000 are taken", UDP)
def oversize(case, cls):
    server = case.server(cls, packet=1000, drain=1000)
    with contextlib.closing(server.connect()) as client:
        answer = ask(client, b"x" * 9000)
        case.check(answer == b"cut " + b"x" * 996, f"truncated, and marked as such: {answer[:8]}…")
        answer = ask(client, b"x" * 1000)
        case.check(answer == b"x" * 1000, "a datagram of the maximum size is complete")
    check_stop(case, server, 1)


@row("F47", "empty datagrams", "ten of no bytes", UDP)
def empty(case, cls):
    server = case.server(cls, drain=1000)
    with contextlib.closing(server.connect()) as client:
        good = sum(ask(client, b"") == b"empty" for _ in range(10))
    case.check(good == 10, "each is a request")
    took = probe(server)
    case.note(f"I1 {server.stats()['finished']} finished, probe {took * 1000:.0f} ms")
    check_stop(case, server, 1)


@row("F47", "answers that cannot be sent", "answer of 70,000 bytes; 300 senders that are gone", UDP)
def closed_port(case, cls):
    server = case.server(cls, drain=1000)
    for number in range(300):
        with contextlib.closing(server.connect()) as client:
            client.send(b"big" if number % 3 == 0 else b"hello")
        if number % 100 == 99:
            # The kernel's queue has room for some 200.
            settled(case, server, number + 1)
    slowest = max(probe(server) for _ in range(10))
    stats = server.stats()
    case.check(stats["failed"] == 100 and stats["panicked"] == 0, f"{stats['failed']} failed, the loop continues")
    case.check(slowest <= 1 + SLACK, f"I2 slowest probe {slowest * 1000:.0f} ms")
    check_log(case, server)
    check_stop(case, server, 1)


@row("F47", "handlers that panic", "100 datagrams", UDP)
def panics(case, cls):
    server = case.server(cls, drain=1000)
    with contextlib.closing(server.connect()) as client:
        for _ in range(100):
            client.send(b"panic")
    settled(case, server, 100)
    case.check(probe(server) <= 1 + SLACK, f"I1 {server.stats()['panicked']} panicked, others served")
    check_log(case, server)
    check_stop(case, server, 1)


@row("F47", "spoofed datagrams", "hping3 --udp: from port 0, from addresses that are not there, in its own network namespace",
     UDP, needs=("hping3", "timeout"), netns=True, alone=True)
def spoofed(case, cls):
    server = case.server(cls, drain=1000)
    for source in (["-s", "0", "-k"], ["-a", "10.255.255.1"], ["-a", "255.255.255.255"], ["-a", "0.0.0.0"]):
        run_tool("timeout", "10", "hping3", "-q", "--udp", "-I", "lo", "-i", "u2000", "-c", "200", "-d", "20", *source,
                 "-p", server.port, "127.0.0.1", good=(0, 1, 124))
    settled(case, server)
    took = probe(server)
    stats = server.stats()
    case.check(stats["panicked"] == 0, f"{stats['accepted']} came, {stats['failed']} could not be answered; probe {took * 1000:.0f} ms")
    check_log(case, server)
    check_stop(case, server, 1)


@row("F47", "a burst of datagrams, and the receive queue overflows", "hping3 --udp --flood for 2 s, in its own network namespace",
     UDP, needs=("hping3", "timeout"), netns=True, alone=True)
def flood(case, cls):
    server = case.server(cls, drain=2000, max=200)
    # With all it makes for its first request.
    probe(server)
    settled(case, server)
    before = server.sample()
    run_tool("timeout", "2", "hping3", "-q", "--udp", "--flood", "-I", "lo", "-d", "100", "-p", server.port, "127.0.0.1",
             good=(0, 1, 124))
    settled(case, server)
    took = probe(server)
    drops = kernel_drops(server)
    stats = server.stats()
    case.check(stats["accepted"] > 100, f"{stats['accepted']} served, {drops} dropped by the kernel (/proc/net/udp), "
               f"probe {took * 1000:.0f} ms")
    until = time.monotonic() + 12
    after = server.sample()
    while time.monotonic() < until and (
            after["threads"] > before["threads"] + 1 or after["fds"] > before["fds"] or after["children"]):
        time.sleep(0.2)
        after = server.sample()
    grown = (after["rss"] - before["rss"]) / 1e6
    case.check(after["fds"] <= before["fds"] and after["children"] == 0 and grown < 60,
               f"I3 {before['fds']} -> {after['fds']} fds, {after['threads']} threads, rss {grown:+.1f} MB")
    check_log(case, server)
    check_stop(case, server, 2)


def kernel_drops(server):
    for line in Path(f"/proc/{server.pid}/net/udp").read_text().splitlines()[1:]:
        parts = line.split()
        if int(parts[1].split(":")[1], 16) == server.port:
            return int(parts[-1])
    raise NotRun("the kernel does not count drops")
