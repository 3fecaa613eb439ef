"""E. Handlers and children that die: F40, F41, F45, F46."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from kit import (
    FIXED, ROOT, SLACK, STREAM, TARGET, Failed, NotRun, check_log, check_stop, have_ended, in_background, check_invariants, kill, read_all,
    read_line, room, row, wait_for,
)


def zombies(server):
    found = 0
    for pid in server.children():
        with contextlib.suppress(OSError):
            found += Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return found


@row("F40", "children are killed", "SIGKILL, SIGSEGV, SIGABRT of children under load", ("forking", "forking-unix"))
def killed_children(case, cls):
    server = case.server(cls, drain=1000, max_children=60)
    with check_invariants(case, server):
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
            wait_for("the end of earlier children", lambda: len(server.children()) <= 1)
            clients = [case.connect(server) for _ in range(20)]
            for client in clients:
                client.sendall(b"hello\n")
                read_line(client)
            # The probe's child is not among those with a client of ours for long.
            victims = sorted(server.children())[:10]
            for pid in victims:
                kill(pid, number)
            wait_for("the end of the children", lambda: have_ended(victims))
            lost = 0
            for client in clients:
                try:
                    client.sendall(b"hello\n")
                    lost += read_line(client, 2) != b"hello\n"
                except OSError:
                    lost += 1
                client.close()
            case.check(9 <= lost <= 10, f"{number.name}: 10 killed, {lost} connections lost")
        stats = server.wait_for_stats(lambda stats: stats["in_flight"] <= 1, 5, "all collected")
        case.check(27 <= stats["failed"] <= 30, f"{stats['failed']} counted as failed")
    check_stop(case, server, 1)


@row("F40", "a child runs out of memory", "cgroup with 100 MB, a handler that allocates 400", ("forking", "prefork"))
def out_of_memory(case, cls):
    group = Path("/sys/fs/cgroup/memory") / f"faults-{os.getpid()}-{time.monotonic_ns()}"
    unified = Path("/sys/fs/cgroup") / group.name
    try:
        if Path("/sys/fs/cgroup/memory").is_dir():
            group.mkdir()
            (group / "memory.limit_in_bytes").write_text("100M")
        else:
            group = unified
            group.mkdir()
            (group / "memory.max").write_text("100M")
            (group / "memory.swap.max").write_text("0")
    except OSError as error:
        raise NotRun(f"cannot create a cgroup: {error}") from error
    try:
        server = case.server(cls, drain=1000, **room(cls, 4))
        if cls == "prefork":
            server.wait_for_workers(5)
        for pid in server.processes():
            (group / "cgroup.procs").write_text(str(pid))
        with contextlib.closing(server.connect()) as client:
            client.sendall(b"memory 400000000\n")
            data, error = read_all(client, 20)
            case.check(data == b"", f"its connection is lost ({error or 'end of file'})")
        stats = server.wait_for_stats(lambda stats: stats["failed"] == 1, 5, "counted")
        case.check("killed by signal 9" in server.log_text(), f"counted as failed, logged, the parent is alive")
        server.probe(1)
        check_log(case, server)
        check_stop(case, server, 1)
    finally:
        for case_server in case.servers:
            case_server.kill()
        with contextlib.suppress(OSError, Failed):
            wait_for("the end of the processes", lambda: not (group / "cgroup.procs").read_text())
            group.rmdir()


@row("F41", "100 children die at once", "SIGSTOP, kill -9 of each, SIGCONT", ("forking",))
def mass_death(case, cls):
    server = case.server(cls, drain=1000, max_children=200, queue=256, own_child=1)
    own = {int(pid) for line in server.lines if line.startswith("child") for pid in [line.split("pid=")[1]]}
    with check_invariants(case, server, probing=False):
        clients = [case.connect(server) for _ in range(100)]
        for client in clients:
            client.sendall(b"hello\n")
        for client in clients:
            read_line(client)
        children = server.children() - own
        case.check(len(children) == 100, f"{len(children)} children")
        os.kill(server.pid, signal.SIGSTOP)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        wait_for("the end of the children", lambda: have_ended(children))
        os.kill(server.pid, signal.SIGCONT)
        begin = time.monotonic()
        stats = server.wait_for_stats(lambda stats: stats["failed"] == 100, 5, "all counted")
        case.check(server.children() == own, f"all reaped after {(time.monotonic() - begin) * 1000:.0f} ms")
        case.check(zombies(server) == 1, "the program's own child was not reaped")
        for client in clients:
            client.close()
    check_stop(case, server, 1)
    case.check(any(line == "own status=0" for line in server.lines), "the program got its exit status")


@row("F45", "fork with another thread", "a thread that takes the logger's lock repeatedly", ("forking", "forking-udp", "prefork"))
def fork_beside_threads(case, cls):
    server = case.server(cls, thread=1)
    code = server.process.wait(5)
    output = server.wait_for_line("failed", 2)
    case.check(code == 3 and "fork refused" in output, output[:110])


@row("F45", "many forks of a process that logs", "2,000 (--full: 10,000) requests at level trace, a process for each",
     ("forking", "prefork"), alone=True)
def many_forks(case, cls):
    count = 10_000 if case.full else 2_000
    server = case.server(cls, log="trace", drain=1000, max_requests=1, **room(cls, 8))
    begin = time.monotonic()
    slowest = max(server.probe(3) for _ in range(count))
    case.check(slowest <= 1 + SLACK, f"none of {count} hung: slowest {slowest * 1000:.0f} ms, "
               f"{count / (time.monotonic() - begin):.0f} a second")
    stats = server.wait_for_stats(lambda stats: stats["in_flight"] == 0, 5, "all collected")
    left = len(server.wait_for_workers(5)) - 8 if cls == "prefork" else len(server.children())
    case.check(stats["finished"] == count and not left, "all collected")
    check_stop(case, server, 1)


@row("F46", "handlers that panic", "in handle, with a lock held, in Drop", STREAM + ("unix",))
def panics(case, cls):
    server = case.server(cls, drain=1000)
    with check_invariants(case, server, probing=cls not in ("tcp", "unix")):
        for command in (b"panic\n", b"panic-lock\n", b"panic-drop\nbye\n"):
            for _ in range(5):
                with contextlib.closing(server.connect()) as client:
                    client.sendall(command)
                    _, error = read_all(client, 5)
                    if isinstance(error, TimeoutError):
                        raise Failed(f"{command!r} was not served")
        with contextlib.closing(server.connect()) as client:
            client.sendall(b"use-lock\n")
            case.note(f"the user's lock: {read_line(client).decode().strip()}")
        stats = server.wait_for_stats(lambda stats: stats["panicked"] == 15, 5, "15 panics")
        case.check(stats["panicked"] == 15, "15 panics counted, others served")
    check_stop(case, server, 1)


@row("F46", "a handler overflows its stack", "endless recursion", ("threading", "forking") + FIXED + ("selector",))
def overflow(case, cls):
    server = case.server(cls, drain=1000)
    server.probe(1)
    with contextlib.closing(server.connect()) as client:
        client.sendall(b"overflow 1\n")
        read_all(client, 10)
    if cls not in ("forking", "prefork"):
        code = server.process.wait(10)
        case.check(code == -signal.SIGABRT, "the process dies by SIGABRT, as documented")
        return
    stats = server.wait_for_stats(lambda stats: stats["failed"] == 1, 10, "counted")
    case.check(stats["failed"] == 1, "only the child died")
    server.probe(1)
    check_stop(case, server, 1)


@row("F46", "a program built with panic=abort", "CARGO_PROFILE_RELEASE_PANIC=abort, a handler that panics",
     ("threading", "forking", "pool", "prefork", "selector"), long=True, alone=True)
def abort(case, cls):
    target = TARGET / "abort"
    environment = {**os.environ, "CARGO_PROFILE_RELEASE_PANIC": "abort", "CARGO_TARGET_DIR": str(target)}
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "-p", "sock-tests",
                    "--example", "fault_server"], cwd=ROOT,
                   env=environment, check=True)
    server = case.server(cls, program=target / "release" / "examples" / "fault_server", drain=1000)
    with contextlib.closing(server.connect()) as client:
        client.sendall(b"panic\n")
        read_all(client, 10)
    if cls not in ("forking", "prefork"):
        case.check(server.process.wait(10) == -signal.SIGABRT, "the process dies by SIGABRT, as documented")
        return
    server.wait_for_stats(lambda stats: stats["failed"] == 1, 10, "counted")
    server.probe(1)
    case.note("only the child died")
    check_stop(case, server, 1)
