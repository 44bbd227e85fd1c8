"""Runs the user's command in this process, once the services it needs answer.

Called as ``python -u -m nimbus_hub.replica script train.py --epochs 3`` (or ``-m package``);
other runners call :func:`wait_for_services` and :func:`run` themselves. Endpoints to wait for
are in NIMBUS_WAIT_FOR, ``tracker-0=10.0.0.1:4000 ...``, and how long in NIMBUS_WAIT_SECONDS.

Python 3.6 and later, standard library only.
"""

# ruff: noqa: BLE001

import atexit
import builtins
import importlib.machinery
import os
import runpy
import socket
import sys
import time
import traceback

from nimbus_hub.replica import program

__all__ = ["leave_at_once", "run", "takes_connections", "wait_for_services"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

USUAL_SECONDS = 300.0
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.5
SAY_EVERY_SECONDS = 15.0


def main(arguments: "list[str]") -> None:
    """Wait for services, then run the command."""
    wait_for_services()
    run(arguments)


def wait_for_services(answers: "Callable[[str, int], bool] | None" = None) -> None:
    """Return when all endpoints of NIMBUS_WAIT_FOR answer; exit, naming the first, if late.

    ``answers`` tells whether one does; without it, whether it takes a connection.
    """
    seconds = float(os.environ.get("NIMBUS_WAIT_SECONDS", USUAL_SECONDS))
    end = time.monotonic() + seconds
    for entry in os.environ.get("NIMBUS_WAIT_FOR", "").split():
        name, _, where = entry.partition("=")
        host, _, port = where.rpartition(":")
        pause, said_at = FIRST_PAUSE, time.monotonic()
        while not (answers or takes_connections)(host, int(port)):
            now = time.monotonic()
            if now >= end:
                sys.exit("nimbus: %s at %s did not answer within %g s" % (name, where, seconds))
            if now - said_at >= SAY_EVERY_SECONDS:
                sys.stderr.write("nimbus: waiting for %s at %s\n" % (name, where))
                said_at = now
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)


def takes_connections(host: str, port: int) -> bool:
    """Tell whether somebody listens at an address."""
    try:
        socket.create_connection((host, port), timeout=2.0).close()
    except OSError:
        return False
    return True


def run(arguments: "list[str]") -> None:
    """Run a script or module with its arguments as ``python`` would, as ``__main__``.

    Returns when it came to its end; an exception is shown as python shows it, without a frame
    of ours, and raised as SystemExit(1).
    """
    target = program.target_of(["python", *arguments])
    if target is None:
        sys.exit("nimbus: name a script or a module (-m NAME), got %s" % " ".join(arguments))
    is_module, name, rest = target
    sys.argv[:] = ["-m" if is_module else name, *rest]
    # What python puts first for this module is the working directory.
    sys.path[0] = os.getcwd() if is_module else os.path.dirname(os.path.realpath(name))
    try:
        run_main(is_module, name)
    except SystemExit:
        raise
    except BaseException as error:
        error.__traceback__ = program.without_our_frames(error.__traceback__)
        program.show(error)
        # In a process that was forked for a run with --pdb.
        debugger = getattr(sys, "nimbus_debugger", None)
        if debugger is not None and error.__traceback__ is not None:
            debugger(error.__traceback__)
        sys.exit(1)


def run_main(is_module: bool, name: str) -> None:
    """Run it in a ``__main__`` that knows nothing of this module."""
    namespace = sys.modules["__main__"].__dict__
    namespace.clear()
    names = ("__doc__", "__loader__", "__package__", "__spec__")
    namespace.update(dict.fromkeys(names), __name__="__main__", __builtins__=builtins)
    if is_module:
        runpy._run_module_as_main(name)  # type: ignore[attr-defined]
        return
    path = os.path.join(os.getcwd(), name) if sys.version_info >= (3, 9) else name
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", 0, True)
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    namespace.update(__file__=path, __cached__=None, __loader__=loader)
    exec(code, namespace)


def leave_at_once(end: SystemExit) -> None:
    """End as python would, but without a word of the framework's to the others.

    Theirs is then the failure of a peer; in order, it may wait for them as they do for it.
    """
    if not isinstance(end.code, int):
        sys.stderr.write("%s\n" % (end.code,))
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:  # whatever the user made of them
        traceback.print_exc()
    os._exit(end.code & 0xFF if isinstance(end.code, int) else 1)
