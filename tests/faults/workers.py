"""E. The models with workers that are started in advance: F13, F22, F35, F40 to F44 for
`ThreadPool…`, `Prefork…` and `Selector…`."""

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

from kit import (
    FIXED, SLACK, Failed, Prober, allow_descriptors, brief_drain, check_log, check_spin, check_stop, closed_after, check_invariants,
    have_ended, kill, read_all, read_line, row, state_of, strace, wait_for, with_descriptors,
)

NEW = ("pool", "prefork", "selector")


def ask(client, words, limit=5):
    client.sendall(words)
    return read_line(client, limit)


class Load:
    """Clients that connect repeatedly, with counts of their results."""

    def __init__(self, server, clients=4, words=b"hello\nbye\n", answer=b"hello\n"):
        self.server, self.words, self.answer = server, words, answer
        self.served = self.lost = 0
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        while not self.stopping.is_set():
            try:
                with self.server.connect(timeout=5) as client:
                    client.sendall(self.words)
                    good = read_all(client, 5) == (self.answer, None)
            except OSError:
                good = False
            with self.lock:
                self.served += good
                self.lost += not good

    def wait_for(self, more):
        """Waits until so many more clients were served."""
        before = self.served
        wait_for(f"{more} clients served", lambda: self.served >= before + more)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(10)


@contextlib.contextmanager
def under_load(server, **how):
    load = Load(server, **how)
    try:
        yield load
    finally:
        load.stop()


def hold_workers(case, server, count):
    """Connects clients. Returns each with the process that serves it."""
    held = {}
    for _ in range(count):
        client = case.connect(server)
        held[int(ask(client, b"pid\n"))] = client
    return held


def gone(pids, limit):
    until = time.monotonic() + limit
    while time.monotonic() < until:
        if have_ended(pids):
            return True
        time.sleep(0.01)
    return False


def bind_again(server, limit):
    """Returns after how many seconds the address can be bound again."""
    begin = time.monotonic()
    while time.monotonic() < begin + limit:
        with contextlib.closing(socket.socket()) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                listener.bind(server.where())
                listener.listen()
                return time.monotonic() - begin
        time.sleep(0.01)
    return None


# --- F13, F22, F35: clients and handlers that hold a worker ------------------------------


@row("F13", "more silent clients than workers", "4 workers, 12 silent clients, first byte 400 ms", FIXED)
def more_silent_than_workers(case, cls):
    server = case.server(cls, workers=4, first_byte=400, drain=1000)
    # Three rounds of silent clients. A client that connects meanwhile waits.
    with check_invariants(case, server, bound=1.5, quiet=True):
        clients = [case.connect(server) for _ in range(12)]
        closed = closed_after(clients, 6)
        case.check(None not in closed, "all 12 closed")
        case.check(0.35 <= min(closed) <= 0.4 + 0.25 + SLACK and max(closed) <= 3 * (0.4 + 0.25) + SLACK,
                   f"first byte deadline of 400 ms, three rounds: from {min(closed) * 1000:.0f} to {max(closed) * 1000:.0f} ms")
        stats = server.wait_for_stats(lambda stats: stats["first_byte"] >= 12, 3, "the deadline was counted")
        case.check(stats["first_byte"] == 12, f"{stats['first_byte']} counted")
    check_stop(case, server, 1)


@contextlib.contextmanager
def on_one_processor(*servers):
    """Pins this thread and the servers to one processor, so that wake-ups cost the same."""
    allowed = os.sched_getaffinity(0)
    tasks = [int(task.name) for server in servers for task in Path(f"/proc/{server.pid}/task").iterdir()]

    def keep(processors):
        for task in (0, *tasks):
            # A thread may have ended.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(task, processors)

    keep({min(allowed)})
    try:
        yield
    finally:
        keep(allowed)


@row("F22", "echo beside idle connections", "1,000 idle (--full: 10,000), a server with and one without, in turns",
     ("selector",), alone=True)
def echo_beside_idle(case, cls):
    most = 10_000 if case.full else 1_000
    allow_descriptors(most + 2000)
    limits = with_descriptors(most + 1000)
    settings = {"wrapper": limits, "queue": 4096, "idle": "off", "max": 2 * most, "drain": 5000}
    server, alone = case.server(cls, **settings), case.server(cls, **settings)
    with check_invariants(case, server, rss=most * 0.06 + 30, settle=30):
        before = server.sample()
        clients = []
        for number in range(most):
            clients.append(server.connect(source=f"127.0.{number % 50}.{1 + number // 50 % 250}"))
            clients[-1].sendall(b"hello\n")
        server.wait_for_stats(lambda stats: stats["idle_now"] >= most, 60, "all idle")
        after = server.sample()
        threads = after["threads"] - before["threads"]
        # A thread that was started has touched its stack and a memory arena.
        each = (after["rss"] - before["rss"] - 100_000 * threads) / most
        case.note(f"{most} idle: {each:.0f} B of resident memory each, {threads} threads more")
        # Pages that are touched once weigh more with fewer connections.
        case.check(each <= (512 if case.full else 1024) and threads <= 8,
                   "no thread for each connection, and little memory")
        check_spin(case, server)
        with contextlib.closing(server.connect()) as beside, contextlib.closing(alone.connect()) as without, \
                on_one_processor(server, alone):
            cost = {beside: [], without: []}
            for _ in range(27):
                for client, used in ((beside, server), (without, alone)):
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    begin = used.cpu_time()
                    for _ in range(100):
                        client.sendall(b"hello\n")
                        if client.recv(100) != b"hello\n":
                            raise Failed("an echo was lost")
                    cost[client].append(used.cpu_time() - begin)
            # The minimum of the CPU time, because other load only increases it.
            share = min(cost[without]) / min(cost[beside])
            case.check(share >= 0.8, f"echo without them costs {share:.2f} of what it costs beside them")
        for client in clients:
            client.close()
        server.wait_for_stats(lambda stats: stats["in_flight"] <= 1, 30, "all gone")
    check_stop(case, server, 5)


@row("F22", "a queue between the loop and the workers", "4 workers, a queue of 8, 30 clients: refused, or waiting", ("pool",))
def jobs_wait(case, cls):
    for refuse in (1, 0):
        server = case.server(cls, workers=4, jobs=8, refuse=refuse, queue=64, drain=1500, first_byte="off")
        with check_invariants(case, server, probing=False, bound=2):
            clients = [case.connect(server) for _ in range(30)]
            for client in clients:
                client.sendall(b"sleep 150\nbye\n")
            output = [read_all(client, 10) for client in clients]
            served, busy = output.count((b"slept\n", None)), output.count((b"busy\n", None))
            if refuse:
                case.check(served + busy == 30 and 8 <= served <= 20, f"{served} served, {busy} refused")
                server.wait_for_stats(lambda stats: stats["rejected"] == busy, 5, "counted")
            else:
                case.check(served == 30, "all 30 served, 4 at a time")
            for client in clients:
                client.close()
        check_stop(case, server, 1.5)


@row("F35", "handlers that block for ever", "6 of 8 workers (selector: 12 of 2); request deadline of 900 ms; drain of 1 s",
     ("pool", "selector"))
def blocked_workers(case, cls):
    # A thread cannot be killed, so it stays blocked and counts as in flight.
    count = 6 if cls == "pool" else 12
    server = case.server(cls, workers=8 if cls == "pool" else 2, request=900, drain=1000)
    with check_invariants(case, server, settle=0, alive=False):
        clients = [case.connect(server) for _ in range(count)]
        for client in clients:
            client.sendall(b"block\n")
        closed = closed_after(clients, 4)
        case.check(None not in closed and max(closed) <= 0.9 + 0.25 + SLACK,
                   f"their clients were closed after {max(took or 99 for took in closed) * 1000:.0f} ms")
        slowest = max(server.probe(1) for _ in range(30))
        server.wait_for_stats(lambda stats: stats["in_flight"] == count, 3, "only the blocked requests are in flight")
        case.note(f"other clients are served, slowest {slowest * 1000:.0f} ms")
        check_spin(case, server, 1)
    code, took, report = server.terminate(5)
    case.check(took <= 1.25 + SLACK and int(report["aborted"]) == count and int(report["still_running"]) == count and code == 1,
               f"I6 exited after {took * 1000:.0f} ms, exit {code}: {brief_drain(report)}")


@row("F35", "handlers that block or spin for ever", "block, spin in 3 of 8 workers, request deadline of 700 ms", ("prefork",))
def stuck_workers(case, cls):
    server = case.server(cls, workers=8, request=700, heartbeat=600, drain=1000)
    with check_invariants(case, server):
        before = server.children()
        clients = [case.connect(server) for _ in range(3)]
        for client, words in zip(clients, (b"block\n", b"spin\n", b"block\n")):
            client.sendall(words)
        closed = closed_after(clients, 5)
        case.check(None not in closed and max(closed) <= 0.7 + 0.25 + SLACK,
                   f"their clients were closed after {max(took or 99 for took in closed) * 1000:.0f} ms")
        until = time.monotonic() + 6
        while len(before & server.children()) > 5 and time.monotonic() < until:
            time.sleep(0.02)
        case.check(len(server.wait_for_workers(5) & before) == 5, "their workers were killed and replaced, the others not")
    case.check(sum("no heartbeat" in line for line in server.log_lines()) >= 1, "logged")
    check_stop(case, server, 1)


# --- F40, F41: killed ------------------------------------------------------------------


@row("F40", "workers are killed", "SIGKILL, SIGSEGV, SIGABRT of workers under load", ("prefork",))
def killed_workers(case, cls):
    server = case.server(cls, workers=12, drain=1000)
    with check_invariants(case, server), under_load(server, clients=2) as load:
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
            held = hold_workers(case, server, 6)
            victims = list(held)[:4]
            for pid in victims:
                kill(pid, number)
            wait_for("the end of the workers", lambda: have_ended(victims))
            lost = 0
            for pid, client in held.items():
                try:
                    lost += ask(client, b"hello\n", 2) != b"hello\n"
                except OSError:
                    lost += 1
                client.close()
            case.check(lost == 4, f"{number.name}: 4 killed, {lost} connections lost")
            case.check(not set(victims) & server.wait_for_workers(6), "replaced")
        load.wait_for(51)
        load.stop()
        case.check(load.lost == 0 and load.served > 50, f"during this time {load.served} served, {load.lost} lost")
        stats = server.wait_for_stats(lambda stats: stats["in_flight"] <= 1, 5, "all collected")
        case.check(stats["failed"] == 12, f"{stats['failed']} counted as failed")
    check_stop(case, server, 1)


@row("F40", "workers are killed as fast as they come", "2 s (--full: 20 s) of SIGKILL, one every 20 ms, under load", ("prefork",))
def killed_again_and_again(case, cls):
    server = case.server(cls, workers=8, drain=1000)
    seconds, seen = 20 if case.full else 2, set()
    with check_invariants(case, server, probing=False, bound=2):
        with under_load(server) as load:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                for pid in sorted(server.children())[:1]:
                    seen.add(pid)
                    kill(pid, signal.SIGKILL)
                time.sleep(0.02)
        case.check(server.is_alive() and load.served > 0, f"{len(seen)} killed, {load.served} served, {load.lost} lost")
        # A worker is killed every 20 ms. Without pauses as many would be forked.
        case.check(len(seen) <= 30 * seconds, "workers that die early are replaced after a pause")
        case.check(load.lost <= len(seen), "at most one connection lost for each killed worker")
        server.wait_for_workers(12)
        stats = server.wait_for_stats(lambda stats: stats["in_flight"] == 0, 5, "all collected")
        case.check(stats["failed"] <= len(seen), f"{stats['failed']} counted as failed")
    check_stop(case, server, 1)


@row("F41", "all workers die at once", "SIGSTOP of the parent, kill -9 of all 20 (--full: 100), SIGCONT", ("prefork",))
def all_workers_die(case, cls):
    count = 100 if case.full else 20
    server = case.server(cls, workers=count, queue=256, drain=1000, own_child=1)
    own = {int(line.split("pid=")[1]) for line in server.lines if line.startswith("child")}
    server.wait_for_workers(10)
    held = hold_workers(case, server, count // 2)
    before = server.children() - own
    case.check(len(before) == count and len(held) == count // 2, f"{len(before)} workers, {len(held)} of them serve")
    os.kill(server.pid, signal.SIGSTOP)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_for("the end of the workers", lambda: have_ended(before))
    os.kill(server.pid, signal.SIGCONT)
    begin = time.monotonic()
    stats = server.wait_for_stats(lambda stats: stats["failed"] == len(held), 5, "all counted")
    case.check(gone(before, 5), f"all reaped after {(time.monotonic() - begin) * 1000:.0f} ms")
    case.note(f"a new client after {server.probe(2) * 1000:.0f} ms")
    new = server.wait_for_workers(10)
    case.check(len(new) == count and not new & before, f"{len(new)} new ones, {(time.monotonic() - begin) * 1000:.0f} ms after")
    case.check(stats["in_flight"] == 0 and all(state_of(pid) == "Z" for pid in own), "the program's own child was not reaped")
    check_log(case, server)
    check_stop(case, server, 1)
    case.check(any(line == "own status=0" for line in server.lines), "the program got its exit status")


# --- F42: stopped, stuck, recycled -------------------------------------------------------


@row("F42", "workers are stopped", "SIGSTOP of 2 idle and 2 busy ones of 10 under load, heartbeat of 600 ms", ("prefork",))
def stopped_workers(case, cls):
    server = case.server(cls, workers=10, heartbeat=600, request=20000, drain=1000)
    # The probe begins once they are stopped. Before that, one of them could serve it.
    with check_invariants(case, server, probing=False):
        held = hold_workers(case, server, 2)
        idle = sorted(server.wait_for_workers(5) - set(held))[:2]
        with under_load(server, clients=4) as load:
            load.wait_for(20)
            begin = time.monotonic()
            for pid in [*held, *idle]:
                os.kill(pid, signal.SIGSTOP)
            prober = Prober(server, 1.0)
            case.check(gone([*held, *idle], 6), f"killed {(time.monotonic() - begin) * 1000:.0f} ms after they were stopped")
            took = time.monotonic() - begin
            # The heartbeat, the interval of the checks, and a second between SIGABRT and SIGKILL.
            case.check(0.6 <= took <= 0.6 + 0.4 + 1 + 0.3 + SLACK, "within the documented time, busy or idle")
        new = server.wait_for_workers(6)
        case.check(not new & {*held, *idle}, "and replaced")
        prober.stop(case)
        # Only clients that the stopped workers served are lost.
        case.check(load.lost <= 2 and load.served > 20, f"{load.served} served meanwhile, {load.lost} lost")
        stats = server.wait_for_stats(lambda stats: stats["in_flight"] <= 1, 5, "all collected")
        case.check(2 <= stats["failed"] <= 4, f"{stats['failed']} counted as failed")
        for client in held.values():
            client.close()
    case.check(sum("no heartbeat" in line for line in server.log_lines()) >= 1, "logged")
    check_stop(case, server, 1)


@row("F42", "workers are stopped, and go on in time", "SIGSTOP of all for 300 ms, five times, heartbeat of 1.5 s", ("prefork",))
def stopped_for_a_while(case, cls):
    server = case.server(cls, workers=6, heartbeat=1500, drain=1000)
    with check_invariants(case, server, bound=2, quiet=True):
        before = server.wait_for_workers(5)
        with under_load(server, clients=2) as load:
            for _ in range(5):
                for pid in before:
                    os.kill(pid, signal.SIGSTOP)
                time.sleep(0.3)
                for pid in before:
                    os.kill(pid, signal.SIGCONT)
                time.sleep(0.1)
        case.check(load.lost == 0 and server.children() == before, f"{load.served} served, none lost, no worker killed")
    check_stop(case, server, 1)


@row("F42", "the whole process is stopped for a second", "SIGSTOP, SIGCONT under load, ten idle clients", ("pool", "selector"))
def stopped_process(case, cls):
    # A thread cannot be stopped alone.
    server = case.server(cls, idle=3000, drain=1000)
    with check_invariants(case, server, bound=2, quiet=True):
        idle = [case.connect(server) for _ in range(10)]
        for client in idle:
            ask(client, b"hello\n")
        with under_load(server, clients=3) as load:
            load.wait_for(20)
            os.kill(server.pid, signal.SIGSTOP)
            time.sleep(1)
            os.kill(server.pid, signal.SIGCONT)
            load.wait_for(20)
        case.check(load.lost == 0 and load.served > 0, f"{load.served} served, none lost")
        case.check(all(ask(client, b"hello\n") == b"hello\n" for client in idle), "no idle client was closed")
        for client in idle:
            client.close()
    check_stop(case, server, 1)


@row("F42", "a long connection does not count as a missing heartbeat", "3 s of short requests, request deadline of 1 s, heartbeat of 300 ms", ("prefork",))
def long_conversation(case, cls):
    server = case.server(cls, workers=4, heartbeat=300, request=1000, drain=1000)
    with check_invariants(case, server, quiet=True):
        before = server.wait_for_workers(5)
        with contextlib.closing(server.connect()) as client:
            for _ in range(30):
                case_answer = ask(client, b"hello\n")
                if case_answer != b"hello\n":
                    raise Failed("the connection was closed")
                time.sleep(0.1)
        case.check(server.children() == before, "30 requests in 3 s, no worker killed")
    check_stop(case, server, 1)


@row("F42", "a slow request ends by its own deadline", "a byte now and then; request deadline of 800 ms, heartbeat of 300 ms", ("prefork",))
def slow_is_not_stuck(case, cls):
    server = case.server(cls, workers=4, heartbeat=300, request=800, read=5000, drain=1000)
    with check_invariants(case, server, quiet=True):
        before = server.wait_for_workers(5)
        clients = [case.connect(server) for _ in range(3)]
        for client in clients:
            client.sendall(b"half a line")
        closed = closed_after(clients, 4)
        case.check(None not in closed and 0.75 <= min(closed) and max(closed) <= 0.8 + 0.25 + SLACK,
                   f"closed after {max(took or 99 for took in closed) * 1000:.0f} ms")
        stats = server.wait_for_stats(lambda stats: stats["request"] == 3, 3, "the deadline was counted")
        case.check(stats["failed"] == 0 and server.children() == before, "the worker closed them itself and was not killed")
    check_stop(case, server, 1)


@row("F42", "accept wants resources for longer than a heartbeat", "strace inject accept4:error=ENFILE when=3+, heartbeat of 600 ms",
     ("prefork",), needs=("strace",))
def trouble_is_not_stuck(case, cls):
    wrapper, _ = strace(case, "accept4:error=ENFILE:when=3+")
    server = case.server(cls, wrapper=wrapper, workers=2, heartbeat=600, drain=1000)
    before = server.wait_for_workers(5)
    with contextlib.closing(server.connect()) as client:
        # The first two calls of each worker succeed.
        for _ in range(4):
            with contextlib.closing(server.connect()) as other:
                other.settimeout(0.3)
                with contextlib.suppress(OSError):
                    ask(other, b"hello\n", 0.3)
        del client
        time.sleep(3)
    case.check(server.children() == before, "a worker that backs off sends heartbeats")
    check_log(case, server)
    check_stop(case, server, 1)


@row("F42", "SIGTERM beside stopped workers", "one idle, one busy; heartbeat of 30 s, drain of 1 s", ("prefork",))
def drained_beside_stopped(case, cls):
    server = case.server(cls, workers=4, drain=1000)
    held = hold_workers(case, server, 1)
    idle = sorted(server.wait_for_workers(5) - set(held))[:1]
    pids = server.children()
    for pid in [*held, *idle]:
        os.kill(pid, signal.SIGSTOP)
    code, took, report_text = server.terminate(6)
    case.check(took <= 1.25 + SLACK, f"I6 exited after {took * 1000:.0f} ms, exit {code}: {brief_drain(report_text)}")
    name = ":".join(map(str, list(held.values())[0].getsockname()))
    case.check(code == 1 and report_text["aborted"] == "1" and report_text["peer"] == name, "the report names the aborted client")
    case.check(gone(pids, 1), "no worker left")
    stats = server.last_stats()
    case.check(stats["consistent"] == 1 and stats["in_flight"] == 0, "I1 consistent")


@row("F42", "workers are recycled", "max_requests 5, jitter 3, 4 workers, 400 requests (--full: 5,000) under load", ("prefork",))
def recycled(case, cls):
    count = 5_000 if case.full else 400
    server = case.server(cls, workers=4, max_requests=5, jitter=3, queue=256, drain=1000)
    with check_invariants(case, server, quiet=True):
        by, lost, lock = {}, [], threading.Lock()

        def come(number):
            for _ in range(number):
                try:
                    with contextlib.closing(server.connect()) as client:
                        pid = int(ask(client, b"pid\n"))
                    with lock:
                        by[pid] = by.get(pid, 0) + 1
                except (OSError, ValueError) as error:
                    lost.append(error)

        threads = [threading.Thread(target=come, args=(count // 4,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        case.check(not lost, f"{sum(by.values())} served by {len(by)} workers, {len(lost)} lost{': ' + repr(lost[0]) if lost else ''}")
        # The requests of the probe count too.
        case.check(max(by.values()) <= 8 and len(by) >= count // 8, f"none served more than {max(by.values())}")
        server.wait_for_workers(5)
        stats = server.wait_for_stats(lambda stats: stats["in_flight"] <= 1, 5, "all ended")
        case.check(stats["failed"] == 0 and stats["finished"] >= count, "all counted, although their workers have exited")
    check_stop(case, server, 1)


# --- F43: workers that cannot start --------------------------------------------------------


@row("F43", "workers crash before they serve", "error, panic, exit, abort in start_worker", ("prefork",))
def crash_loop(case, cls):
    there = case.folder / "there"
    there.touch()
    for what in ("fail", "panic", "exit", "abort"):
        server = case.server(cls, workers=4, boot=f"{what}:{there}", log="debug", wait=False)
        begin = time.monotonic()
        code = server.process.wait(20)
        took = time.monotonic() - begin
        output = server.wait_for_line("failed", 2)
        started = sum("started" in line for line in server.log_text().splitlines() if "prefork" in line)
        case.check(code == 3 and "cannot start" in output, f"{what}: after {took:.1f} s {output[:110]}")
        # Up to four at once, then one at a time after 5 ms, 10 ms, … 1 s.
        case.check(10 <= started <= 13 and took > 2, f"{started} forks")
        check_log(case, server)


@row("F43", "workers crash at first, then can start", "start_worker fails while a file is there", ("prefork",))
def crash_loop_that_ends(case, cls):
    there = case.folder / "there"
    server = case.server(cls, workers=3, boot=f"fail:{there}", drain=1000)
    cannot_start_for(case, server, there, 0.25, 3)
    check_stop(case, server, 1)


def cannot_start_for(case, server, there, seconds, limit):
    """Kills all workers while a file keeps others from starting; then lets them start."""
    with check_invariants(case, server, probing=False):
        there.touch()
        for pid in server.wait_for_workers(5):
            kill(pid, signal.SIGKILL)
        time.sleep(seconds)
        there.unlink()
        case.note(f"served after {server.probe(limit) * 1000:.0f} ms")
        server.wait_for_workers(5)


@row("F43", "a worker hangs before it serves", "start_worker never returns; heartbeat of 500 ms", ("prefork",))
def hangs_at_boot(case, cls):
    there = case.folder / "there"
    server = case.server(cls, workers=2, boot=f"hang:{there}", heartbeat=500, drain=1000)
    cannot_start_for(case, server, there, 0.5, 4)
    case.check(any("no heartbeat" in line for line in server.log_lines()), "logged")
    check_stop(case, server, 1)


@row("F43", "new workers cannot start while others serve", "start_worker fails while a file is there, 1 of 3 is killed", ("prefork",))
def crash_loop_beside_others(case, cls):
    there = case.folder / "there"
    server = case.server(cls, workers=3, boot=f"fail:{there}", drain=1000)
    with check_invariants(case, server, probing=False):
        there.touch()
        kill(sorted(server.wait_for_workers(5))[0], signal.SIGKILL)
        prober = Prober(server, 1.0)
        # More than ten attempts.
        time.sleep(5)
        prober.stop(case)
        case.check(server.is_alive(), "the others keep serving")
        check_spin(case, server, 1)
        there.unlink()
        server.wait_for_workers(5)
    check_stop(case, server, 1)


# --- F44: the parent is killed -----------------------------------------------------------------


@row("F44", "the server is killed under load", "kill -9, the address is bound again", NEW)
def parent_killed(case, cls):
    server = case.server(cls, workers=8, close=5000)
    pids = server.wait_for_workers(5) if cls == "prefork" else set()
    idle = [case.connect(server) for _ in range(3)]
    for client in idle:
        ask(client, b"hello\n")
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(contextlib.closing(server.connect()))
        load = stack.enter_context(under_load(server, clients=2))
        load.wait_for(20)
        busy.sendall(b"hello\nsleep 1800\nbye\n")
        case.check(read_line(busy) == b"hello\n", "a client is being served")
        load.wait_for(20)
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(5)
        took = bind_again(server, 5)
        case.check(took is not None and took <= 0.25 + SLACK,
                   f"the port is free after {'never' if took is None else f'{took * 1000:.0f} ms'}")
        if cls == "prefork":
            case.check(read_all(busy, 5) == (b"slept\n", None), "the busy client got its response")
            case.check(gone(pids, 1), "the workers have exited")
            closed = closed_after(idle, 1)
            case.check(None not in closed, "idle clients were closed")


@row("F44", "the parent of children between two requests is killed", "kill -9, 5 clients that have been answered", ("forking",))
def parent_of_children_killed(case, cls):
    server = case.server(cls)
    clients = [case.connect(server) for _ in range(5)]
    for client in clients:
        ask(client, b"hello\n")
    children = server.children()
    case.check(len(children) == 5, f"{len(children)} children")
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait(5)
    case.check(None not in closed_after(clients, 1), "their clients were closed")
    case.check(gone(children, 1), "they have exited")
    case.check(bind_again(server, 1) is not None, "the port is free")


@row("F44", "the parent is killed while handlers block for ever", "kill -9, 2 of 4 workers blocked, close_timeout of 1 s", ("prefork",))
def parent_killed_beside_stuck(case, cls):
    server = case.server(cls, workers=4, close=1000)
    pids = server.wait_for_workers(5)
    for words in (b"block\n", b"spin\n"):
        case.connect(server).sendall(words)
    server.wait_for_stats(lambda stats: stats["in_flight"] == 2, 5, "inside")
    os.kill(server.pid, signal.SIGKILL)
    begin = time.monotonic()
    server.process.wait(5)
    case.check(gone(pids, 5), f"the workers have exited after {(time.monotonic() - begin) * 1000:.0f} ms")
    case.check(time.monotonic() - begin <= 1.25 + SLACK, "within close_timeout")
    case.check(bind_again(server, 1) is not None, "the port is free")


@row("F44", "the parent is killed at once after its start", "kill -9 after 0 to 30 ms, 15 times", ("prefork",))
def parent_killed_early(case, cls):
    for round in range(15):
        server = case.server(cls, workers=6)
        time.sleep(round * 0.002)
        pids = server.children()
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(5)
        # Workers that were forked after the check also have the listener.
        if not gone(pids, 3) or bind_again(server, 3) is None:
            raise Failed(f"round {round}: workers outlived their parent")
    case.note("no worker outlived its parent")
