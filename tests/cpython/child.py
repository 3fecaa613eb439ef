"""Runs tests of one of CPython's test modules and writes what becomes of them,
a line of JSON for each event, so that the parent knows which test hung.

    child.py EVENTS MODULE SKIPPED...

Started by `run`. SKIPPED are the ids of tests that are not to run (again).
"""

import faulthandler
import importlib
import json
import os
import sys
import tempfile
import time
import unittest


def cases(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from cases(item)
        else:
            yield item


def without(suite, skipped):
    """The suite in its own order and with its own classes, less what is left out."""
    kept = type(suite)()
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            kept.addTest(without(item, skipped))
        elif item.id() not in skipped:
            kept.addTest(item)
    return kept


class Reporter(unittest.TestResult):
    """Sends events to the parent, also for what is not a test (a setUpClass)."""

    def __init__(self, events):
        super().__init__()
        self.events = events
        self.started = None

    def send_event(self, **event):
        print(json.dumps(event), file=self.events, flush=True)

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()
        self.send_event(start=test.id())

    def stopTest(self, test):
        super().stopTest(test)
        if self.started is not None:
            self.send_event(stop=test.id(), seconds=time.monotonic() - self.started)
            self.started = None

    def outcome(self, test, outcome, text=""):
        # CPython 3.12.1 does not start a test that a decorator skips.
        unstarted = self.started is None and isinstance(test, unittest.TestCase)
        if unstarted:
            self.send_event(start=test.id())
        self.send_event(test=test.id(), outcome=outcome, text=text)
        if unstarted:
            self.send_event(stop=test.id(), seconds=0)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.outcome(test, "skip", reason)

    def addError(self, test, err):
        super().addError(test, err)
        self.outcome(test, "fail", self.errors[-1][1])

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.outcome(test, "fail", self.failures[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            found = self.failures if issubclass(err[0], test.failureException) else self.errors
            self.outcome(test, "fail", found[-1][1])

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.outcome(test, "fail", "unexpected success")


def no_internet(*_args, **_kwargs):
    from test.support import ResourceDenied

    raise ResourceDenied("beyond this machine")


def main():
    events, name, skipped = sys.argv[1], sys.argv[2], set(sys.argv[3:])
    # The folder of this file is not to hide what the tests import.
    sys.path.pop(0)
    faulthandler.enable()
    from test import support
    from test.support import socket_helper

    # As `python -m test` without -u: nothing beyond this machine. Some modules ask
    # for the network as a whole though most of their tests stay here: those get
    # it, and only what says that it goes out (transient_internet) is denied.
    support.use_resources = ()
    if name in ("test_timeout", "test_socketserver"):
        support.use_resources = ("network",)
        socket_helper.transient_internet = no_internet
    events = open(events, "w")
    reporter = Reporter(events)
    import _socket

    reporter.send_event(socket=getattr(_socket, "__file__", "built in"), python_half=hasattr(_socket, "_replaced"))
    folder = tempfile.mkdtemp(prefix="sock-cpython-")
    os.chdir(folder)
    try:
        module = importlib.import_module("test." + name)
    except unittest.SkipTest as reason:
        reporter.send_event(module="skip", text=str(reason))
        return
    except ModuleNotFoundError as error:
        if error.name != "test." + name:
            raise
        reporter.send_event(missing=str(error))
        return
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    reporter.send_event(tests=[case.id() for case in cases(suite)])
    without(suite, skipped).run(reporter)
    reporter.send_event(end=True)
    events.flush()
    # A thread that a test has left must not keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()
