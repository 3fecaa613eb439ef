"""F. Behind a balancer, and worker processes under load: F48 to F52. The servers are the example `service`, and the configurations
are those of docs/operations.md."""

import contextlib
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import kit
from kit import TCP, Failed, row, wait_for

SERVICE = kit.PROGRAM.with_name("service")
PAGE = (kit.ROOT / "docs" / "operations.md").read_text()
MODULES = Path("/usr/lib/nginx/modules")

# Requests per second. A machine with two processors that is busy serves as many.
RATE = 80
CLIENTS = 8

# The longest wait for an answer or for an event. Only a failure takes so long.
LIMIT = 30


def configuration(section):
    """Returns the configuration in a section of the page."""
    return PAGE.split(f"### {section}\n")[1].split("```text\n")[1].split("```")[0]


def replaced(text, old, new):
    if old not in text:
        raise Failed(f"docs/operations.md does not contain {old!r}")
    return text.replace(old, new)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# --- a client -------------------------------------------------------------------------


def exchange(sock, path, closes):
    """Sends a request. Returns the status, the body, and whether the connection ends."""
    fields = "Host: test\r\nConnection: close\r\n" if closes else "Host: test\r\n"
    sock.sendall(f"GET {path} HTTP/1.1\r\n{fields}\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(1 << 16)
        if not data:
            raise ConnectionError("closed without an answer" if not answer else "closed in the head of an answer")
        answer += data
    head, body = answer.split(b"\r\n\r\n", 1)
    head = head.decode().lower()
    length = int(re.search(r"\ncontent-length: *(\d+)", head)[1])
    while len(body) < length:
        data = sock.recv(1 << 16)
        if not data:
            raise ConnectionError("closed in the body of an answer")
        body += data
    return int(head.split(" ")[1]), body.decode(), "\nconnection: close" in head


def fetch(port, path):
    with socket.create_connection(("127.0.0.1", port), LIMIT) as sock:
        return exchange(sock, path, True)


class Load:
    """Clients that send requests at a fixed rate, and count the answers by their text and the failures
    by their cause. Every client keeps its connection, or none does, or every other one."""

    def __init__(self, port, kinds, rate=RATE, clients=CLIENTS):
        self.port, self.pause = port, clients / rate
        self.answers, self.failures, self.lock = Counter(), Counter(), threading.Lock()
        self.stopping = threading.Event()
        first = time.monotonic()
        self.threads = [threading.Thread(target=self.run, args=(first + number / rate, closes), daemon=True)
                        for number, closes in zip(range(clients), itertools.cycle(kinds))]
        for thread in self.threads:
            thread.start()

    def run(self, due, closes):
        sock = None
        while not self.stopping.wait(max(0, due - time.monotonic())):
            # A client that was late does not send the requests that it has missed.
            due = max(due + self.pause, time.monotonic())
            try:
                sock = sock or socket.create_connection(("127.0.0.1", self.port), LIMIT)
                status, body, ends = exchange(sock, "/", closes)
                cause = "" if status == 200 else f"status {status}"
            except OSError as error:
                ends, cause = True, error.strerror or str(error)
            with self.lock:
                if cause:
                    self.failures[cause] += 1
                else:
                    self.answers[body] += 1
            if sock and (ends or closes):
                sock.close()
                sock = None
        if sock:
            sock.close()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(LIMIT + 5)

    def wait_for(self, text, more=1):
        """Waits until a server with this text has answered some more requests."""
        before = self.answers[text]
        wait_for(f"{more} answers {text!r}", lambda: self.answers[text] >= before + more)

    def summary(self):
        failures = ", ".join(f"{count} {cause}" for cause, count in self.failures.items()) or "0"
        return f"{self.answers.total()} answered, failed: {failures}"


# --- a server -------------------------------------------------------------------------


class Service:
    """A process of the example. Its page is `name`."""

    def __init__(self, case, model, port, name, lame_duck):
        self.model, self.port, self.name = model, port, name
        page = case.folder / name
        page.write_text(name)
        self.log = open(case.folder / f"log-{name}", "w+b")
        command = [SERVICE, "127.0.0.1", str(port), model, str(lame_duck), "off", page]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        env={"RUST_LOG": "sockserver=info", "PATH": os.environ["PATH"]})
        self.pid = self.process.pid
        case.closing.callback(self.kill)
        wait_for(f"{name} serves", lambda: self.process.poll() is not None or self.is_ready())
        if self.process.poll() is not None:
            raise Failed(f"{name} has exited: {self.text()[-300:]}")

    def is_ready(self):
        with contextlib.suppress(OSError):
            return fetch(self.port, "/ready")[0] == 200

    def text(self):
        return Path(self.log.name).read_text(errors="replace")

    def terminate(self, case):
        """Stops it, and checks its last line, which has the counters."""
        os.kill(self.pid, signal.SIGTERM)
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{self.name} has not stopped") from error
        lines = self.text().splitlines()
        # Another thread may have logged something after it.
        last = next((line for line in reversed(lines) if " accepted, " in line), "")
        if not last:
            raise Failed(f"{self.name} exit {code}: {lines[-3:]}")
        counted = {name: int(value) for value, name in re.findall(r"(\d+) ([a-z ]+)", last)}
        others = sum(value for name, value in counted.items() if name not in ("accepted", "in flight"))
        if code != 0 or counted["in flight"] != 0 or counted["accepted"] != others:
            case.check(False, f"{self.name} exit {code}: {last}")
        return counted

    def children(self):
        return kit.children_of(self.pid)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.log.close()


class Scrapes:
    """Reads the counters of servers all the time, and checks that they are consistent."""

    def __init__(self, *servers):
        self.servers, self.count, self.trouble = list(servers), 0, None
        self.stopping, self.last = threading.Event(), {}
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.wait(0.05):
            for server in list(self.servers):
                try:
                    status, text, _ = fetch(server.port, "/metrics")
                except (OSError, TypeError):
                    continue  # It stops.
                try:
                    # Another server may have the port by now.
                    if server in self.servers:
                        self.compare(server, status, text)
                except Failed as failure:
                    self.trouble = failure
                    return

    def compare(self, server, status, text):
        if status != 200 or not text.endswith("# EOF\n"):
            raise Failed(f"a scrape of {server.name}: status {status}, {text[-50:]!r}")
        now = {name: float(value) for name, value in
               (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))}
        before = self.last.get(server, {})
        for name, value in now.items():
            is_counter = name.split("{")[0].endswith(("_total", "_count", "_bucket", "_sum"))
            if value < 0 or is_counter and value < before.get(name, 0):
                raise Failed(f"{name} of {server.name}: {before.get(name)}, then {value}")
        ended = sum(value for name, value in now.items() if name.startswith("sockserver_ended_total{"))
        if now["sockserver_accepted_total"] != ended + now["sockserver_in_flight"]:
            raise Failed(f"{server.name} is inconsistent: {text}")
        self.last[server] = now
        self.count += 1

    def replace(self, old, new=None):
        self.servers = [server for server in self.servers if server is not old] + [new] * (new is not None)

    def stop(self):
        self.stopping.set()
        self.thread.join(LIMIT + 5)
        if self.trouble:
            raise self.trouble


# --- a balancer -----------------------------------------------------------------------


def start_balancer(case, name, ports, grace):
    """Starts a balancer with the configuration of the page. Returns its port."""
    port = free_port()
    text = configuration({"haproxy": "HAProxy", "nginx": "nginx"}[name] + " with HTTP")
    text = replaced(text, "0.0.0.0:8080", f"127.0.0.1:{port}")
    for number, own in enumerate(ports, 9001):
        text = replaced(text, f"127.0.0.1:{number}", f"127.0.0.1:{own}")
    path = case.folder / "balancer.conf"
    if name == "haproxy":
        # Checks that take a tenth of the time, for a lame duck that takes as much less.
        text = replaced(text, "inter 1s", "inter 100ms")
        if not grace:
            text = replaced(text, "defaults\n", "defaults\n    retries 0\n")
        path.write_text(text)
        command = ["haproxy", "-db", "-f", path]
    else:
        paths = "".join(f"{one}_temp_path {case.folder}/{one};\n"
                        for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        text = replaced(text, "http {\n", f"http {{\naccess_log off;\n{paths}")
        if not grace:
            text = replaced(text, "http {\n", "http {\nproxy_next_upstream off;\n")
        path.write_text(f"daemon off;\nmaster_process off;\nerror_log stderr;\npid {case.folder}/pid;\n{text}")
        command = ["nginx", "-p", case.folder, "-c", path]
    log = open(case.folder / "balancer.log", "w+b")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end():
        process.kill()
        process.wait(10)
        log.close()

    case.closing.callback(end)

    def serves():
        if process.poll() is not None:
            raise Failed(f"{name} has exited: {Path(log.name).read_text(errors='replace')[-300:]}")
        with contextlib.suppress(OSError, TypeError):
            return fetch(port, "/live")[0] == 200

    wait_for(f"{name} serves", serves)
    return port


# Whether clients close their connections.
KEEP_ALIVE, CLOSE, BOTH = (False,), (True,), (False, True)


def roll(case, balancer, model, kinds, rounds):
    """Replaces two servers under load, one after the other. Returns the load."""
    # HAProxy needs 200 ms to find out, and more if the machine is so busy that checks take long.
    lame_duck = {"haproxy": 2, "nginx": 1}[balancer]
    ports = [free_port(), free_port()]
    servers = [Service(case, model, port, f"{place}-0", lame_duck) for place, port in enumerate(ports)]
    load, scrapes = Load(start_balancer(case, balancer, ports, True), kinds), Scrapes(*servers)
    served = Counter()
    try:
        for server in servers:
            load.wait_for(server.name)
        for turn in range(1, rounds + 1):
            for place in (0, 1):
                old = servers[place]
                served[old.name] = old.terminate(case)
                scrapes.replace(old)
                servers[place] = Service(case, model, ports[place], f"{place}-{turn}", lame_duck)
                scrapes.replace(None, servers[place])
                # The balancer sends it requests before the other one is stopped.
                load.wait_for(servers[place].name, 5)
    finally:
        load.stop()
        scrapes.stop()
    for server in servers:
        served[server.name] = server.terminate(case)
    for name, counted in served.items():
        good = not counted["failed"] + counted["aborted"] + counted["panicked"] + counted["timed out"]
        # A connection of this model is for one request.
        good = good and (model != "tcp" or load.answers[name] <= counted["accepted"])
        if not good:
            case.check(False, f"{name} has answered {load.answers[name]}, and counted {counted}")
    case.note(f"{scrapes.count} scrapes consistent")
    return load


def replace_both(case, balancer, model):
    for kinds in (KEEP_ALIVE, CLOSE, BOTH) if case.full else (BOTH,):
        load = roll(case, balancer, model, kinds, 3 if case.full else 1)
        kind = {KEEP_ALIVE: "keep-alive", CLOSE: "close", BOTH: "keep-alive and close"}[kinds]
        if load.failures:
            # HAProxy writes why a server is out of service.
            case.note((case.folder / "balancer.log").read_text(errors="replace")[-1500:])
        case.check(not load.failures, f"{kind}: {load.summary()}")


@row("F48", "both servers behind HAProxy are replaced under load", "80 requests a second", TCP, needs=("haproxy",))
def rolled_behind_haproxy(case, model):
    replace_both(case, "haproxy", model)


@row("F49", "both servers behind nginx are replaced under load", "80 requests a second", TCP, needs=("nginx",))
def rolled_behind_nginx(case, model):
    replace_both(case, "nginx", model)


def replaced_at_once(case, balancer, model):
    """The control: without a lame duck, and without a second attempt of the balancer, requests are lost."""
    ports = [free_port(), free_port()]
    servers = [Service(case, model, port, f"{place}-0", 0) for place, port in enumerate(ports)]
    load = Load(start_balancer(case, balancer, ports, False), BOTH)
    try:
        for server in servers:
            load.wait_for(server.name)
        servers[0].terminate(case)
        with contextlib.suppress(Failed):
            wait_for("a lost request", lambda: load.failures, 10)
    finally:
        load.stop()
    case.check(load.failures, f"lost without a lame duck: {load.summary()}")


@row("F50", "control: a server behind HAProxy is stopped without a lame duck", "requests are lost", TCP,
     needs=("haproxy",))
def control_behind_haproxy(case, model):
    replaced_at_once(case, "haproxy", model)


@row("F50", "control: a server behind nginx is stopped without a lame duck", "requests are lost", TCP,
     needs=("nginx",))
def control_behind_nginx(case, model):
    replaced_at_once(case, "nginx", model)


# --- worker processes -----------------------------------------------------------------


@row("F51", "worker processes killed, stopped, added and recycled under load", "80 requests a second",
     ("forking", "prefork"))
def disturbed(case, model):
    times = 20 if case.full else 4
    # Time for a last request on each connection of a worker that is replaced.
    service = Service(case, model, free_port(), "page", 2)
    load, scrapes = Load(service.port, BOTH), Scrapes(service)
    try:
        load.wait_for("page", 5)
        # Clients keep several children of a forking server.
        some = {"forking": 2, "prefork": 1}[model]

        def workers(least=some):
            return wait_for("workers", lambda: len(found := service.children()) >= least and sorted(found))

        def send(pid, *numbers):
            with contextlib.suppress(ProcessLookupError):
                for place, number in enumerate(numbers):
                    # The time for which it is stopped.
                    time.sleep(0.2 if place else 0)
                    os.kill(pid, number)

        def lost_none(what):
            load.wait_for("page", 20)
            if load.failures:
                case.check(False, f"{what}: {load.summary()}")

        for _ in range(times):
            send(random.choice(workers()), signal.SIGSTOP, signal.SIGCONT)
        lost_none("stopped workers")
        processes = [service.pid, *workers()]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in processes:
                send(pid, number)
            # The time for which all are stopped.
            time.sleep(0.3)
        lost_none("all stopped")
        for turn in range(2, times + 2):
            old = set(workers())
            send(service.pid, signal.SIGHUP)
            wait_for("a reload", lambda: service.text().count("is loaded") >= turn)
            if model == "prefork":
                wait_for("new workers", lambda: len(now := service.children()) >= len(old) and not now & old)
        lost_none("recycled workers")
        if model == "prefork":
            count = len(workers())
            for number, least in ((signal.SIGTTIN, count + 1), (signal.SIGTTOU, count)):
                send(service.pid, number)
                wait_for(f"{least} workers", lambda: len(service.children()) == least)
            for _ in range(times):
                one = random.choice(workers(count))
                send(one, signal.SIGTERM)
                wait_for("the end of a worker", lambda: one not in service.children())
            lost_none("added, removed and terminated workers")
        for _ in range(times):
            one = random.choice(workers())
            send(one, signal.SIGKILL)
            wait_for("the end of a worker", lambda: one not in service.children())
            load.wait_for("page", 5)
    finally:
        load.stop()
        scrapes.stop()
    # A worker of the prefork server has a request of each client at most.
    most = times * (CLIENTS if model == "prefork" else 1)
    case.check(load.failures.total() <= most, f"{times} workers killed: {load.summary()}")
    counted = service.terminate(case)
    case.check(counted["failed"] <= most and not counted["aborted"], f"{scrapes.count} scrapes consistent; {kit.brief(counted)}")


@row("F52", "signals, as the page operations lists them", "80 requests a second", TCP)
def signalled(case, model):
    service = Service(case, model, free_port(), "page", 2)
    load = Load(service.port, BOTH)
    try:
        load.wait_for("page", 5)
        harmless = [signal.SIGPIPE, signal.SIGWINCH, signal.SIGCHLD, signal.SIGURG, signal.SIGCONT]
        if model == "prefork":
            harmless += [signal.SIGTTIN, signal.SIGTTOU]
        for number in harmless:
            os.kill(service.pid, number)
            load.wait_for("page", 5)
        for turn in (2, 3):
            os.kill(service.pid, signal.SIGHUP)
            wait_for("a reload", lambda: service.text().count("is loaded") >= turn)
        os.kill(service.pid, signal.SIGSTOP)
        wait_for("the pause", lambda: kit.state_of(service.pid) == "T")
        # The time for which it is stopped.
        time.sleep(0.3)
        os.kill(service.pid, signal.SIGCONT)
        load.wait_for("page", 20)
        case.check(not load.failures, f"harmless signals and a pause: {load.summary()}")
        children = service.children()
        os.kill(service.pid, signal.SIGQUIT)
        code = service.process.wait(LIMIT)
        case.check(code == -signal.SIGQUIT, f"ended by SIGQUIT: {code}")
        wait_for("the end of its processes", lambda: kit.have_ended(children))
    finally:
        load.stop()
