"""D. Stopping, signals, restart, paths: F31 to F35, F39."""

import contextlib
import os
import re
import signal
import socket
import threading
import time

from kit import (
    SLACK, STREAM, TCP, THREADS, CLASSES, Failed, brief, brief_drain, check_log, check_stop, closed_after, in_background,
    read_all, read_line, row, strace,
)


def say(client, words):
    client.sendall(words)
    return client


def inside(server, clients):
    server.wait_for_stats(lambda stats: stats["in_flight"] >= clients, 10, f"{clients} inside")
    time.sleep(0.1)


@row("F31", "SIGTERM beside idle, busy and stuck clients", "5 idle, 3 busy, 2 stuck; drain of 1.5 s",
     TCP[1:] + ("threading-unix",))
def drained(case, cls):
    server = case.server(cls, drain=1500)
    idle = [say(case.connect(server), b"hello\n") for _ in range(5)]
    for client in idle:
        read_line(client)
    busy = [say(case.connect(server), b"sleep 600\n") for _ in range(3)]
    stuck = [say(case.connect(server), b"block\n") for _ in range(2)]
    inside(server, 10)
    begin = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    refused, more = None, 0
    while refused is None and time.monotonic() < begin + 2:
        try:
            server.connect(timeout=0.1).close()
            more += 1
            time.sleep(0.005)
        except TimeoutError:
            # Linux drops a SYN that arrives while the listener is being shut down, and the client
            # sends the next one after a second: 11 of 79,000 shutdowns of a Python listener.
            pass
        except OSError:
            refused = time.monotonic() - begin
    case.check(refused is not None and refused <= 0.25 + SLACK, f"new clients refused after {refused * 1000:.0f} ms")
    ended = closed_after(idle, 3)
    worst = max(took if took is not None else 99 for took in ended)
    case.check(worst <= 0.25 + SLACK, f"idle clients closed after {worst * 1000:.0f} ms")
    answers = [read_line(client, 3) for client in busy]
    case.check(answers == [b"slept\n"] * 3, "busy clients got their responses")
    code = server.process.wait(5)
    took = time.monotonic() - begin
    with server.heard:
        server.heard.wait_for(lambda: "end" in server.lines, 5)
    report_text = dict(part.split("=", 1) for line in server.lines if line.startswith("drained") for part in line.split()[1:])
    case.check(took <= 1.75 + SLACK, f"I6 exited after {took * 1000:.0f} ms")
    # The parent does not know that a child's connection is idle, so it counts as finished.
    finished, idle, cut = (8, 0, 2) if cls == "forking" else (3, 5, 2)
    report_text = {name: int(value) for name, value in report_text.items() if name != "peer"}
    case.check(report_text["aborted"] == cut and idle <= report_text["idle"] <= idle + more and finished <= report_text["finished"] <= finished + more
               and report_text["elapsed"] <= 1750, f"report {brief_drain(report_text)}")
    case.check(code == 1, f"exit {code}")
    stats = server.last_stats()
    case.check(stats["consistent"] == 1 and stats["aborted"] == cut - report_text["still_running"], f"I1 {brief(stats)}")


@row("F31", "SIGTERM to a server whose loop is busy", "a request of 600 ms, others in the queue", ("tcp", "unix"))
def drained_loop(case, cls):
    server = case.server(cls, drain=1500)
    busy = say(case.connect(server), b"sleep 600\nbye\n")
    inside(server, 1)
    queued = [say(case.connect(server), b"hello\n") for _ in range(3)]
    begin = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    case.check(read_line(busy) == b"slept\n", "the busy client got its response")
    ends = [took for took in closed_after(queued, 2)]
    case.check(all(took is not None for took in ends), "queued clients were refused")
    code = server.process.wait(5)
    case.check(code == 0 and time.monotonic() - begin <= 1.5 + SLACK, f"exit {code} after {time.monotonic() - begin:.2f} s")


@row("F31", "SIGTERM under load", "four clients that come again at once", TCP)
def drained_under_load(case, cls):
    server = case.server(cls, drain=1500, queue=256, max_children=400)
    with contextlib.ExitStack() as load:
        def step():
            with server.connect(timeout=2) as client:
                client.sendall(b"hello\nbye\n")
                read_all(client, 2)

        for _ in range(4):
            load.enter_context(in_background(step))
        server.wait_for_stats(lambda stats: stats["accepted"] >= 100, 10, "100 requests")
        before = server.stats()["accepted"]
        time.sleep(0.3)
        case.note(f"{(server.stats()['accepted'] - before) / 0.3:.0f} requests a second")
        check_stop(case, server, 1.5)
    case.check(server.last_stats()["in_flight"] == 0, f"I1 {server.last_stats()['finished']} finished, none in flight")


@row("F32", "a second signal during the drain", "SIGTERM, SIGINT 300 ms later; drain of 30 s",
     TCP + ("unix", "threading-unix", "forking-unix"))
def hurried(case, cls):
    server = case.server(cls, drain=30000)
    stuck = say(case.connect(server), b"block\n")
    inside(server, 1)
    if cls not in ("tcp", "unix"):
        # Its handler returns when the connection is aborted.
        say(case.connect(server), b"half a line")
        inside(server, 2)
    children = server.children()
    code, took, report = server.terminate(5, signals=(signal.SIGTERM, signal.SIGINT))
    case.check(took <= 0.3 + 0.5 + SLACK, f"ended {(took - 0.3) * 1000:.0f} ms after the second signal")
    case.check(code == 1, f"exit {code}, {brief_drain(report)}")
    left = [pid for pid in children if os.path.exists(f"/proc/{pid}")]
    if cls not in ("tcp", "unix"):
        stats = server.last_stats()
        case.check(report["aborted"] == "2" and stats["consistent"] and stats["aborted"] == 2 - int(report["still_running"]), f"I1 {brief(stats)}")
    if children:
        case.check(not left, f"{len(children)} child reaped")
    if server.kind == "unix":
        case.check(not os.path.exists(server.where()), "the path was removed")
    stuck.close()


class PingPong:
    """A client that sends its next line as soon as the last one was answered."""

    def __init__(self, case, server):
        self.client = case.connect(server)
        self.sent = self.answered = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                self.client.sendall(b"hello\n")
                self.sent += 1
                if read_line(self.client, 30) != b"hello\n":
                    break
                self.answered += 1
        self.client.close()


# The seconds that each receive is delayed.
RECEIVE = 0.3


def entries(trace, thread, call):
    """Returns the times at which the thread entered the call, from a trace with `-ttt`."""
    lines = trace.read_text(errors="replace").splitlines()
    pattern = re.compile(rf"{thread} +([0-9.]+) {call}\(")
    return [float(found[1]) for line in lines if (found := pattern.match(line))]


@row("F32", "receives that take long, and clients that send during the drain",
     "strace inject recvfrom:delay_enter=300 ms; one signal, then two", ("threading", "selector", "pool", "forking"),
     needs=("strace",))
def slow_receives(case, cls):
    for signals, drain, limit in (((signal.SIGTERM,), 1500, 1.75), ((signal.SIGTERM, signal.SIGTERM), 30000, 0.3 + 0.5)):
        wrapper, trace = strace(case, f"recvfrom:delay_enter={round(RECEIVE * 1e6)}", options=("-ttt",))
        server = case.server(cls, wrapper=wrapper, drain=drain)
        clients = [PingPong(case, server) for _ in range(4)]
        stuck = [say(case.connect(server), b"block\n")] if len(signals) > 1 else []
        inside(server, 4 + len(stuck))
        # Their workers are in a receive, or about to enter one.
        server.wait_for_stats(lambda stats: stats["in_flight"] == 4 + len(stuck), 10, "all inside")
        time.sleep(0.5)
        begin = time.time()
        code, took, report = server.terminate(limit + 3, signals=signals)
        # Receives of the main thread itself, of signals and child reports, are delayed as well. Those
        # after the deadline, or after the last signal, delay the end by as much. There are at most
        # two for each client, of its child's report and end, and one for each signal.
        deadline = begin + (1.5 if len(signals) == 1 else 0.3)
        late = sum(entered > deadline - RECEIVE for entered in entries(trace, server.pid, "recvfrom"))
        case.check(took <= limit + late * RECEIVE + SLACK,
                   f"{len(signals)} signals: ended after {took * 1000:.0f} ms, {late} receives after the deadline")
        case.check(late <= 2 * (4 + len(stuck)) + len(signals), "they are few")
        case.check(code == (1 if int(report["aborted"]) else 0), f"exit {code}, {brief_drain(report)}")
        for client in clients:
            client.thread.join(5)
        case.check(all(client.answered >= 1 for client in clients), "all clients were served before")
        if len(signals) == 1:
            lost = sum(client.sent - client.answered for client in clients)
            case.note(f"{lost} of the last lines unanswered")
        delayed = trace.read_text(errors="replace").count("(DELAYED)")
        case.check(delayed > 4, f"{delayed} receives delayed")


@row("F33", "SIGTERM before serving has begun", "killed 0 to 20 ms after its start, 40 times", TCP)
def early(case, cls):
    ends = {}
    for round in range(40):
        server = case.server(cls, wait=False, drain=1000)
        time.sleep(round * 0.0005)
        code, took, _ = server.terminate(5)
        if code not in (0, -signal.SIGTERM):
            raise Failed(f"exit {code}: {server.log_text()[-200:]}")
        ends[code] = ends.get(code, 0) + 1
        server.kill()
    case.note(f"none hung: {ends.get(0, 0)} drained, {ends.get(-15, 0)} died before the signal was caught")


@row("F34", "stopped from inside a handler", "shutdown and drain, called by a handler", TCP)
def from_inside(case, cls):
    expected = {"tcp": (b"Deadlock\n", b"Deadlock\n"), "forking": (b"Unsupported\n",) * 2,
                "prefork": (b"Unsupported\n",) * 2}
    expected = expected.get(cls, (b"ok\n", b"Deadlock\n"))
    for command, answer in zip((b"shutdown\n", b"drain 500\n"), expected):
        server = case.server(cls)
        with contextlib.closing(server.connect()) as client:
            client.sendall(command)
            got = read_line(client, 5)
            case.check(got == answer, f"{command.decode().strip()}: {got.decode().strip()}")
        if cls in ("forking", "prefork"):
            server.probe(1)
        else:
            case.check(server.process.wait(8) == 0, "the server exited")


@row("F35", "a handler blocked on a lock for ever", "drain of 1 s", TCP + ("threading-unix",))
def blocked(case, cls):
    server = case.server(cls, drain=1000)
    stuck = say(case.connect(server), b"block\n")
    name = ":".join(map(str, stuck.getsockname())) if server.kind == "tcp" else ""
    inside(server, 1)
    code, took, report_text = server.terminate(5)
    # If the accept loop itself is blocked, the process exits a quarter of a second later.
    limit = 1.0 + 0.25 + (0.35 if cls == "tcp" else 0)
    case.check(took <= limit + SLACK, f"I6 exited after {took * 1000:.0f} ms")
    if cls == "tcp":
        case.check("did not return" in server.log_text() and name in server.log_text(), "logged with the client's address")
    else:
        case.check(report_text["aborted"] == "1" and report_text.get("peer", "") .startswith(name), f"report {brief_drain(report_text)} {report_text.get('peer')}")
    case.check(code == 1, f"exit {code}")


def listens(path):
    """Returns whether a server listens at the path."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except ConnectionRefusedError:
            return False
    return True


@row("F39", "a path whose server was killed", "kill -9, start again", ("unix", "threading-unix", "forking-unix"))
def stale_path(case, cls):
    path = str(case.folder / "s")
    first = case.server(cls, address=path)
    first.probe(1)
    first.kill()
    case.check(os.path.exists(path), "the path still exists")
    # The child that served the probe also has the listener until it has ended.
    until = time.monotonic() + 5
    while listens(path) and time.monotonic() < until:
        time.sleep(0.01)
    second = case.server(cls, address=path, drain=1000)
    second.probe(1)
    case.check("removing stale socket" in second.log_text(), "the socket was taken over with a log line")
    check_stop(case, second, 1)
    case.check(not os.path.exists(path), "the path was removed at the end")


@row("F39", "a path whose server lives", "started twice", ("unix", "threading-unix", "forking-unix"))
def live_path(case, cls):
    path = str(case.folder / "s")
    first = case.server(cls, address=path, drain=1000)
    second = case.server(cls, address=path, wait=False)
    code = second.process.wait(5)
    output = second.wait_for_line("failed", 2)
    case.check(code == 3 and "AddrInUse" in output and path in output, output.replace(path, "PATH")[:100])
    first.probe(1)
    check_stop(case, first, 1)


@row("F39", "a path that is too long", "120 bytes", ("threading-unix",))
def long_path(case, cls):
    server = case.server(cls, address="/tmp/" + "x" * 115, wait=False)
    code = server.process.wait(5)
    output = server.wait_for_line("failed", 2)
    case.check(code == 3 and "too long" in output, output[:60] + " … " + output[-60:])


@row("F39", "the path is deleted, or replaced by another server", "rm while it serves; then a second server", ("threading-unix",))
def deleted_path(case, cls):
    path = str(case.folder / "s")
    first = case.server(cls, address=path, drain=1000)
    with contextlib.closing(first.connect()) as client:
        os.unlink(path)
        client.sendall(b"hello\n")
        case.check(read_line(client) == b"hello\n", "accepted clients are still served")
    second = case.server(cls, address=path, drain=1000)
    check_stop(case, first, 1)
    case.check(os.path.exists(path), "the first server did not remove the path of the second")
    second.probe(1)
    check_stop(case, second, 1)


@row("F39", "a symbolic link at the path", "to a file, to a dead socket, to nothing", ("threading-unix",))
def linked_path(case, cls):
    file, dead = str(case.folder / "file"), str(case.folder / "dead")
    open(file, "w").write("precious")
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(dead)
    for number, target in enumerate((file, dead, str(case.folder / "nothing"))):
        link = str(case.folder / f"link{number}")
        os.symlink(target, link)
        server = case.server(cls, address=link, wait=False)
        code = server.process.wait(5)
        output = server.wait_for_line("failed", 2)
        case.check(code == 3 and "AddrInUse" in output and os.path.islink(link), f"to {os.path.basename(target)}: refused")
    case.check(open(file).read() == "precious" and os.path.exists(dead), "the target of the link is unchanged")
    server = case.server(cls, address=file, wait=False)
    case.check(server.process.wait(5) == 3 and open(file).read() == "precious", "a regular file is unchanged")
