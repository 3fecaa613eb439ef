"""Shared code of the fault table: a server process, clients, and the invariants that
every row checks (docs/reliability.md)."""

import atexit
import contextlib
import ctypes
import functools
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
PROGRAM = TARGET / "release" / "examples" / "fault_server"

# The machine may be busy. Limits are checked with the server's own measurements where possible.
# A client may observe an event this many seconds later.
SLACK = 0.75

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

CLASSES = {
    # name: (kind of socket, runs in)
    "tcp": ("tcp", "loop"),
    "threading": ("tcp", "threads"),
    "forking": ("tcp", "children"),
    "selector": ("tcp", "threads"),
    "pool": ("tcp", "threads"),
    "prefork": ("tcp", "workers"),
    "unix": ("unix", "loop"),
    "threading-unix": ("unix", "threads"),
    "forking-unix": ("unix", "children"),
    "udp": ("udp", "loop"),
    "threading-udp": ("udp", "threads"),
    "forking-udp": ("udp", "children"),
}
TCP = ("tcp", "threading", "forking", "selector", "pool", "prefork")
# Classes that serve at most as many clients at once as there are workers.
FIXED = ("pool", "prefork")
THREADS = ("threading", "selector")
STREAM = TCP + ("threading-unix", "forking-unix")


class Failed(Exception):
    """A check that failed."""


class NotRun(Exception):
    """The fault cannot be provoked on this machine."""


# --- rows -------------------------------------------------------------------------

ROWS = []


def row(number, fault, how, classes=("",), needs=(), netns=False, alone=False, long=False):
    """Registers a row of the table, or a part of one, for each class."""

    def register(run):
        for cls in classes:
            ROWS.append(Row(number, fault, how, cls, run, needs, netns, alone, long))
        return run

    return register


def wait_for(what, condition, limit=30):
    """Waits until a condition is true, and returns its value. Only a failure takes as long as the limit."""
    until = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > until:
            raise Failed(f"not within {limit} s: {what}")
        time.sleep(0.01)
    return value


class Row:
    def __init__(self, number, fault, how, cls, run, needs, netns, alone, long):
        self.number, self.fault, self.how, self.cls = number, fault, how, cls
        self.run, self.needs, self.netns, self.alone, self.long = run, needs, netns, alone, long
        self.name = f"{number}/{run.__name__}/{cls}"


class Case:
    """One run of a row, with its observations and its servers."""

    def __init__(self, full):
        self.full = full
        self.seen = []
        self.servers = []
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self.closing = contextlib.ExitStack()

    def note(self, text):
        self.seen.append(text)

    def check(self, good, text):
        """Records an observation. The row fails if `good` is false."""
        self.seen.append(text if good else f"FAILED CHECK: {text}")
        if not good:
            raise Failed(text)

    def server(self, cls, **options):
        server = Server(self, cls, **options)
        self.servers.append(server)
        return server

    def connect(self, server, **how):
        return self.closing.enter_context(contextlib.closing(server.connect(**how)))

    def end(self):
        self.closing.close()
        for server in self.servers:
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


# --- the server as a process --------------------------------------------------------


class Server:
    """A process of fault_server."""

    def __init__(self, case, cls, wrapper=(), program=None, address=None, log="warn", wait=True, **options):
        self.case, self.cls = case, cls
        self.kind, self.runs_in = CLASSES[cls]
        workers = min(int(options.get("workers", 20)), int(options.get("max", 10_000)))
        self.workers = workers if self.runs_in == "workers" else 0
        self.pool, self.queued = int(options.get("workers", 20)) if cls == "pool" else 0, "jobs" in options
        if address is None:
            address = "127.0.0.1:0" if self.kind != "unix" else str(case.folder / f"{len(case.servers)}.sock")
        arguments = [f"{name}={value}" for name, value in options.items()]
        self.stderr = open(case.folder / f"log-{len(case.servers)}", "w+b")
        self.lines = []
        self.heard = threading.Condition()
        self.process = subprocess.Popen(
            [*map(str, wrapper), str(program or PROGRAM), cls, address, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr,
            env={"RUST_LOG": f"sockserver={log}", "PATH": os.environ["PATH"]}, cwd=case.folder,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self.pid = self.process.pid
        if wait:
            ready = self.wait_for_line("ready", 20)
            self.pid = int(fields(ready)["pid"])
            self.addresses = re.findall(r" address=(\S+)", ready)

    def _listen(self):
        for line in self.process.stdout:
            with self.heard:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self.heard.notify_all()
        with self.heard:
            self.lines.append("end")
            self.heard.notify_all()

    def wait_for_line(self, word, limit, after=0):
        """Waits for a line that begins with `word`, after the first `after` lines."""
        until = time.monotonic() + limit
        with self.heard:
            while True:
                for line in self.lines[after:]:
                    if line.split(" ")[0] == word:
                        return line
                    if line == "end":
                        raise Failed(f"the server exited without printing {word}: {self.log_text()[-300:]}")
                left = until - time.monotonic()
                if left <= 0:
                    raise Failed(f"no {word} from the server within {limit} s")
                self.heard.wait(left)

    def processes(self):
        """Returns the ids of the server and of the processes that accept for it."""
        return [self.pid, *(self.children() if self.runs_in == "workers" else ())]

    def wait_for_workers(self, limit):
        """Waits until all workers serve. Returns their ids."""
        until = time.monotonic() + limit
        while True:
            # A worker starts its control thread last.
            pids = {pid for pid in self.children() if threads_of(pid) >= 2}
            if len(pids) == self.workers:
                return pids
            if time.monotonic() > until:
                raise Failed(f"{len(pids)} of {self.workers} workers after {limit} s")
            time.sleep(0.02)

    def wait_for_pool(self, limit):
        """Waits until the threads of a pool have started and have their pollers, if they can."""
        until = time.monotonic() + limit
        while time.monotonic() < until:
            pollers = [file for file in Path(f"/proc/{self.pid}/fd").iterdir() if link_of(file) == "anon_inode:[eventpoll]"]
            if len(pollers) >= self.pool or self.queued and threads_of(self.pid) > self.pool:
                return
            time.sleep(0.02)

    def freeze(self):
        """Stops all processes that accept, until `thaw`."""
        for pid in self.processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in self.processes():
            os.kill(pid, signal.SIGCONT)

    def stats(self, limit=10):
        before = len(self.lines)
        if self.runs_in in ("children", "workers"):
            os.kill(self.pid, signal.SIGUSR1)
        else:
            self.process.stdin.write(b"stats\n")
            self.process.stdin.flush()
        counted = {name: int(value) for name, value in fields(self.wait_for_line("stats", limit, before)).items()}
        if not counted["consistent"]:
            raise Failed(f"I1: the counters are inconsistent: {counted}")
        return counted

    def wait_for_stats(self, good, limit, what):
        until = time.monotonic() + limit
        while True:
            counted = self.stats()
            if good(counted):
                return counted
            if time.monotonic() > until:
                raise Failed(f"{what}: not within {limit} s: {brief(counted)}")
            time.sleep(0.02)

    # Clients.

    def where(self, which=0):
        if self.kind == "unix":
            return self.addresses[which]
        host, port = self.addresses[which].rsplit(":", 1)
        return host.strip("[]"), int(port)

    @property
    def port(self):
        return self.where()[1]

    def connect(self, timeout=10, source=None, rcvbuf=None, which=0):
        family = socket.AF_UNIX if self.kind == "unix" else socket.AF_INET
        client = socket.socket(family, socket.SOCK_DGRAM if self.kind == "udp" else socket.SOCK_STREAM)
        try:
            client.settimeout(timeout)
            if rcvbuf:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            if source:
                client.bind((source, 0))
            client.connect(self.where(which))
        except BaseException:
            client.close()
            raise
        return client

    def probe(self, limit=1.0, which=0):
        """Runs a well-behaved client. Returns how long it took."""
        begin = time.monotonic()
        try:
            with self.connect(timeout=max(limit, 0.01) + SLACK, which=which) as client:
                client.sendall(b"probe\n")
                answer = read_line(client, max(limit, 0.01) + SLACK)
        except OSError as error:
            raise Failed(f"I2: a probe got {error!r} after {time.monotonic() - begin:.2f} s") from error
        took = time.monotonic() - begin
        if answer != b"probe\n":
            raise Failed(f"I2: a probe was answered {answer!r}")
        return took

    # Measures.

    def sample(self):
        """Returns the resources of the server's processes together."""
        pids = self.processes()
        total = {"fds": 0, "threads": 0, "children": len(self.children()), "rss": 0, "cpu": 0}
        for pid in pids:
            proc = Path(f"/proc/{pid}")
            try:
                stat = (proc / "stat").read_text().rsplit(")", 1)[1].split()
                total["fds"] += len(list((proc / "fd").iterdir()))
            except OSError:
                if pid == self.pid:
                    raise
                continue
            total["threads"] += int(stat[17])
            total["rss"] += int(stat[21]) * PAGE
            total["cpu"] += (int(stat[11]) + int(stat[12])) / TICK
        return total

    def cpu_time(self):
        """Returns the CPU time in seconds (see clock_getcpuclockid(3))."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def children(self):
        return children_of(self.pid)

    def cpu(self, seconds):
        """Returns the share of one core that the server uses during a time."""
        cpu, begin = self.sample()["cpu"], time.monotonic()
        time.sleep(seconds)
        return (self.sample()["cpu"] - cpu) / (time.monotonic() - begin)

    def is_alive(self):
        return self.process.poll() is None

    def log_text(self):
        return Path(self.stderr.name).read_text(errors="replace")

    def log_lines(self):
        return [line for line in self.log_text().splitlines() if re.match(r"\[\S+ +(WARN|ERROR) ", line)]

    # Stopping.

    def terminate(self, limit, signals=(signal.SIGTERM,), apart=0.3):
        """Sends the signals. Returns the exit status, the seconds, and the drain report."""
        begin = time.monotonic()
        for place, number in enumerate(signals):
            if place:
                time.sleep(apart)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"I6: still running {limit:.1f} s after the signal") from error
        took = time.monotonic() - begin
        with self.heard:
            self.heard.wait_for(lambda: "end" in self.lines, 5)
        drained = next((line for line in self.lines if line.startswith("drained")), "drained")
        return code, took, {name: value for name, value in fields(drained).items()}

    def last_stats(self):
        line = [line for line in self.lines if line.startswith("stats")][-1]
        return {name: int(value) for name, value in fields(line).items()}

    def kill(self):
        if self.process.poll() is None:
            children = set()
            with contextlib.suppress(OSError):
                children = self.children()
            for pid in [self.pid, *children]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.pid != self.process.pid:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(5)
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(10)
        self.process.stdin.close()
        self.stderr.close()


def fields(line):
    return dict(part.split("=", 1) for part in line.split(" ")[1:] if "=" in part)


def children_of(parent):
    """Returns the ids of the child processes."""
    pids = set()
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(OSError):
            pids.update(map(int, (task / "children").read_text().split()))
    return pids


def stat_of(pid):
    """Returns the fields of /proc/PID/stat after the name, None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None


def state_of(pid):
    """Returns the state letter of a process, None if there is no such process."""
    stat = stat_of(pid)
    return stat and stat[0]


def threads_of(pid):
    """Returns the number of threads, 0 for a zombie and if there is no such process."""
    stat = stat_of(pid)
    return int(stat[17]) if stat and stat[0] != "Z" else 0


def have_ended(pids):
    return all(state_of(pid) in (None, "Z") for pid in pids)


def catches(pid, number):
    """Returns whether a process has a handler for a signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*(\w+)", status, re.M)
    return bool(caught and int(caught[1], 16) >> (number - 1) & 1)


def kill(pid, number):
    """Ends a process with a signal."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        if number == signal.SIGSEGV:
            # std handles the first one to detect stack overflows. The second one has its default action.
            wait_for(f"the first SIGSEGV of {pid}", lambda: not catches(pid, number))
            os.kill(pid, number)


def link_of(file):
    """Returns the target of a link, None if it does not exist."""
    try:
        return os.readlink(file)
    except OSError:
        return None


def room(cls, clients):
    """Returns options with enough workers for this many clients, if their number is fixed."""
    return {"workers": clients} if cls in FIXED else {}


def brief(counted):
    """Formats the counters that are not zero."""
    return " ".join(f"{name}={value}" for name, value in counted.items() if value and name != "consistent")


# --- the invariants -----------------------------------------------------------------


class Prober:
    """A thread that runs a well-behaved client repeatedly."""

    def __init__(self, server, bound, pause=0.1, which=0):
        self.server, self.bound, self.pause, self.which = server, bound, pause, which
        self.took, self.trouble = [], None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping.is_set():
            try:
                self.took.append(self.server.probe(self.bound, self.which))
            except Failed as error:
                self.trouble = error
                return
            self.stopping.wait(self.pause)

    def stop(self, case):
        self.stopping.set()
        self.thread.join(self.bound + 10)
        if self.trouble:
            raise self.trouble
        worst = max(self.took, default=0)
        case.check(worst <= self.bound + SLACK, f"I2 {len(self.took)} probes, slowest {worst * 1000:.0f} ms")


@contextlib.contextmanager
def check_invariants(case, server, probing=True, bound=1.0, rss=30, settle=12, quiet=False, which=0, alive=True):
    """Checks the invariants I1 to I4 around a block: counters, probes, leaks, log."""
    server.probe(2, which)
    time.sleep(0.05)
    if server.workers:
        server.wait_for_workers(10)
    if server.pool:
        server.wait_for_pool(10)
    before = server.sample()
    # Each worker has a main thread and a control thread, and may start a deadline thread.
    if server.workers:
        before["threads"] = max(before["threads"], 1 + 3 * server.workers)
    prober = Prober(server, bound, which=which) if probing else None
    yield
    if prober:
        prober.stop(case)
    if not alive:
        return
    server.probe(bound, which)
    until = time.monotonic() + settle
    keys = ("fds", "threads", "children")
    while True:
        after = server.sample()
        if all(after[key] <= before[key] for key in keys):
            break
        if time.monotonic() > until:
            output = ", ".join(f"{key} {before[key]} -> {after[key]}" for key in keys)
            case.check(False, f"I3 leaked: {output}")
        time.sleep(0.1)
    # Each worker touches the memory of its first request once: a process its pages, and a thread of
    # a pool its stack and a memory arena (75 KiB).
    rss += 0.5 * server.workers + 0.1 * server.pool
    grown = (after["rss"] - before["rss"]) / 1e6
    output = ", ".join(f"{after[key]} {key}" for key in keys)
    case.check(grown <= rss, f"I3 back to {output}, rss {grown:+.1f} MB")
    case.note(f"I1 {brief(server.stats())}")
    check_log(case, server, quiet)


def check_log(case, server, quiet=False):
    """I4: at most one line of a kind per second."""
    lines = server.log_lines()
    per_second = {}
    for line in lines:
        when, _, text = line[1:].partition("Z ")
        # The number of a signal that killed a process distinguishes kinds of lines.
        kind = (when, re.sub(r"(?<!by signal )(?<!by signal \d)\d+", "N", text))
        per_second[kind] = per_second.get(kind, 0) + 1
    # One second of the clock can contain the end of one interval and the beginning of the next,
    # and children that fail at the same time have separate limits. Lines about workers are
    # logged by the parent.
    worst = max(per_second.values(), default=0)
    apart = server.runs_in in ("children", "workers")
    case.check(all(count <= (40 if apart and "models::prefork]" not in kind else 2)
                   for (_, kind), count in per_second.items()),
               f"I4 {len(lines)} lines, at most {worst} of a kind per second"
               + (f": {lines[-1][:200]}" if worst > 2 else ""))
    if quiet:
        # A deadline that expires during a request is logged at warn.
        others = [line for line in lines if not re.search(r" deadline of \S+ is over", line)]
        case.check(not others, "I4 no warning or error logged" if not others else f"I4 logged: {others[-1][:200]}")
    return lines


def check_spin(case, server, seconds=2.0, most=0.05):
    """I5: the server does not spin while the fault lasts."""
    share = server.cpu(seconds)
    case.check(share < most, f"I5 {share * 100:.1f} % CPU")


def check_stop(case, server, drain, code=0, limit=None):
    """I6: a signal ends the server within the drain's limit, with this exit status."""
    limit = drain if limit is None else limit
    got, took, drained = server.terminate(limit + 0.25 + SLACK + 2)
    case.check(took <= limit + 0.25 + SLACK, f"I6 stopped after {took * 1000:.0f} ms of at most {limit * 1000:.0f} + 250")
    if "elapsed" in drained:
        case.check(int(drained["elapsed"]) <= limit * 1000 + 250, f"drain {brief_drain(drained)}")
    case.check(got == code, f"exit {got}")
    return drained


def brief_drain(drained):
    return " ".join(f"{name}={drained[name]}" for name in ("finished", "idle", "aborted", "still_running", "elapsed") if name in drained)


# --- provoking ----------------------------------------------------------------------


def reset(client):
    """Closes with a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def read_all(client, limit=10):
    """Receives until the end. Returns the data and the error, None for an end of file."""
    client.settimeout(limit)
    parts = []
    while True:
        try:
            data = client.recv(1 << 16)
        except OSError as error:
            return b"".join(parts), error
        if not data:
            return b"".join(parts), None
        parts.append(data)


def read_line(client, limit=10):
    client.settimeout(limit)
    line = b""
    while not line.endswith(b"\n"):
        data = client.recv(1)
        if not data:
            break
        line += data
    return line


def closed_after(clients, limit):
    """Returns after how many seconds each client was closed, None if it was not."""
    begin, closed = time.monotonic(), {}
    left = {client.fileno(): client for client in clients}
    poller = select.poll()
    for descriptor in left:
        poller.register(descriptor, select.POLLIN)
    while left and time.monotonic() < begin + limit:
        for descriptor, _ in poller.poll(100):
            client = left[descriptor]
            try:
                data = client.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                closed[descriptor] = time.monotonic() - begin
                poller.unregister(descriptor)
                del left[descriptor]
    return [closed.get(client.fileno()) for client in clients]


def strace(case, *inject, calls=None, name="trace", options=()):
    """Returns a wrapper that injects system call errors, and its trace file."""
    trace = case.folder / f"{name}-{len(case.servers)}"
    calls = calls or ",".join(sorted({one.split(":")[0] for one in inject}))
    rules = [part for one in inject for part in ("-e", f"inject={one}")]
    return ["strace", "-f", "-qq", *options, "-o", trace, "-e", f"trace={calls}", *rules], trace


def injected(trace):
    return Path(trace).read_text(errors="replace").count("(INJECTED)")


NEXT_USER = [61_000 + os.getpid() % 2_000]


@functools.lru_cache(None)
def public_program():
    """Returns a copy of the server's program that every user can execute."""
    folder = tempfile.mkdtemp(prefix="faults-program-", dir="/tmp")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = shutil.copy(PROGRAM, folder)
    for path in (folder, program):
        os.chmod(path, 0o755)
    return program


def as_other_user(*limits):
    """Returns options that run the server as an unused user, with limits of prlimit(1)."""
    if os.geteuid() != 0:
        raise NotRun("changing the user needs root")
    NEXT_USER[0] += 1
    user = NEXT_USER[0]
    wrapper = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "prlimit", *limits]
    return {"wrapper": wrapper, "program": public_program()}


LIBC = ctypes.CDLL(None, use_errno=True)


def signal_every_thread(pid, number):
    """Sends a signal to each thread of a process (tgkill(2))."""
    for task in os.listdir(f"/proc/{pid}/task"):
        LIBC.syscall(234 if os.uname().machine == "x86_64" else 131, pid, int(task), number)


@contextlib.contextmanager
def in_background(step):
    """Repeats a step in a thread until the end of the block."""
    stopping = threading.Event()

    def run():
        while not stopping.is_set():
            with contextlib.suppress(OSError):
                step()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(20)


def run_tool(*command, limit=60, good=(0,)):
    done = subprocess.run(list(map(str, command)), capture_output=True, timeout=limit, text=True)
    if done.returncode not in good:
        raise NotRun(f"{command[0]}: exit {done.returncode}: {(done.stderr or done.stdout)[-200:].strip()}")
    return done.stdout + done.stderr


def allow_descriptors(count):
    """Raises the descriptor limit of this process."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))
        except (ValueError, OSError) as error:
            raise NotRun(f"{count} descriptors are not allowed: {error}") from error


def with_descriptors(count):
    """Returns a wrapper that runs the server with this descriptor limit, which may have to be raised."""
    command = ["prlimit", f"--nofile={count}"]
    done = subprocess.run([*command, "true"], capture_output=True, timeout=10, text=True)
    if done.returncode != 0:
        raise NotRun(f"a limit of {count} descriptors is not allowed: {done.stderr.strip()[-200:]}")
    return command


def warn(text):
    print(text, file=sys.stderr, flush=True)
