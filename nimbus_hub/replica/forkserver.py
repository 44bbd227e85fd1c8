"""Imports what takes long and then forks processes in which users' scripts run at once.

Called by warm.py as ``python /proc/self/fd/N/forkserver.py SOCKET [MODULE ...]``, by the
environment's python and under the owner's account, to which this directory may be closed.
It says ``r`` on the socket once all is imported. For each message with a descriptor it forks
a *spare*, a child of warm.py and not of its own, and knows nothing more of it. The spare says
its pid on that descriptor and waits there for those of a run: spec.json, standard input, the
log. Then it answers

    {"is_taken": true}    and becomes the user's program; or
    {"is_taken": false, "is_stale": ...}    and ends: a fork would not do what a new python
                          does. Stale: because of what has changed on disk since the import.

Python 3.6 and later, standard library only.
"""

# ruff: noqa: BLE001, E402, PTH109, PTH116, PTH118, PTH120, PTH123

import sys

BARE = frozenset(sys.modules)
"""What every python has imported before it looks at a script."""

import array
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import time
import traceback
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nimbus_hub.replica import program
else:
    sys.path.insert(0, os.path.dirname(__file__))
    import program

    # The user may have a module of this name.
    del sys.path[0], sys.modules["program"]

PR_SET_PDEATHSIG = 1
LIBRARY = os.path.dirname(os.__file__)
CUSTOM = {"sitecustomize", "usercustomize"}
"""Modules that every new python imports, if it finds them."""


def main(arguments: "list[str]") -> None:
    """Import, then fork for as long as somebody asks; in a spare, run what it is given."""
    os.close(int(os.path.dirname(arguments[0]).rpartition("/")[2]))
    control = unix_socket(int(arguments[1]))
    supervisor = os.getppid()
    server = Server()
    for name in arguments[2:]:
        import_ahead(name)
    server.note_imports()
    gc.collect()
    if hasattr(gc, "freeze"):
        # What is never looked at again stays shared between this process and its forks.
        gc.freeze()
    control.sendall(b"r")
    while True:
        message, descriptors = receive(control)
        if not message:
            return
        if descriptors and fork_spare(supervisor):
            control.close()
            serve(server, unix_socket(descriptors[0]))
            return
        for descriptor in descriptors:
            os.close(descriptor)


def serve(server: "Server", own: socket.socket) -> None:
    """Be a spare: wait for a run, and run it."""
    own.sendall(b'{"pid": %d}\n' % os.getpid())
    message, descriptors = receive(own)
    if not message:
        return
    with open(descriptors[0], encoding="utf-8") as file:
        spec = json.load(file)
    is_stale = server.is_stale()
    found = None if is_stale else server.program(spec)
    if found is not None:
        found.enter(descriptors[1], descriptors[2])
    # Not before: then others are given their part, and the first should be ahead.
    answer = {"is_taken": found is not None, "is_stale": is_stale}
    own.sendall(json.dumps(answer).encode("ascii") + b"\n")
    if found is not None:
        found.run(own)


class Server:
    """What this process was when it was started, and what it has imported."""

    def __init__(self) -> None:
        self.env = dict(os.environ)
        self.executable = sys.executable
        if not getattr(sys.flags, "safe_path", False):
            del sys.path[0]
        self.search_path = program.search_path(self.env, os.getcwd())
        self.changed_env = {}  # type: dict[str, str]
        self.stamps = {}  # type: dict[str, tuple[int, int]]
        self.imported = {}  # type: dict[str, str]

    def note_imports(self) -> None:
        """Remember what is imported ahead, from where, and which variables that has set."""
        for name, value in os.environ.items():
            if self.env.get(name) != value:
                self.changed_env[name] = value
        fixed = BARE.union(sys.builtin_module_names)
        for name, module in list(sys.modules.items()):
            if "." in name or name in fixed or name == "__main__":
                continue
            self.imported[name] = getattr(module, "__file__", None) or ""
        self.stamps = self.stamp()

    def stamp(self) -> "dict[str, tuple[int, int]]":
        """Return what changes when packages are installed, upgraded or removed."""
        found = {}
        paths = list(filter(is_installed, self.imported.values()))
        for folder in filter(is_installed, sys.path):
            names = [name for name in program.names_in(folder) if name.endswith(".pth")]
            paths += [os.path.join(folder, name) for name in names]
        for path in paths:
            try:
                status = os.stat(path)
            except OSError:
                continue
            found[path] = (status.st_mtime_ns, status.st_ino)
        return found

    def is_stale(self) -> bool:
        """Tell whether a new process would import something else than this one did."""
        return self.stamp() != self.stamps

    def program(self, spec: "dict[str, Any]") -> "program.Program | None":
        """Return what a run is, or None if only a new process could be it."""
        env = {"PYTHONUNBUFFERED": "1"}
        env.update(spec["env"])
        target = program.target_of(spec["argv"])
        executable = program.find_program(spec["argv"][0], env.get("PATH", os.defpath))
        if target is None or not program.is_same_program(executable, self.executable):
            return None
        names = program.read_at_start({**self.env, **env})
        if any(self.env.get(name) != env.get(name) for name in names):
            return None
        cwd = os.path.realpath(spec["cwd"])
        found = program.Program(spec, target, executable, cwd, dict(self.changed_env, **env))
        folders = program.search_path(env, cwd)
        if folders != self.search_path:
            if any(CUSTOM.intersection(program.module_names(folder)) for folder in folders):
                return None
            found.replace_search_path(self.search_path, folders)
        if not found.is_readable() or self.is_hidden_by([found.folder, *folders]):
            return None
        return found

    def is_hidden_by(self, folders: "list[str]") -> bool:
        """Tell whether a user's module has the name of one that is imported already."""
        for folder in folders:
            for name in program.module_names(folder):
                path = self.imported.get(name)
                if path is not None and not path.startswith(os.path.join(folder, "")):
                    return True
        return False


def is_installed(path: str) -> bool:
    """Tell whether something may be replaced while python itself stays."""
    return bool(path) and (not path.startswith(LIBRARY) or "-packages" in path)


def import_ahead(name: str) -> None:
    """Import a module; one that cannot be only costs the time it would have saved."""
    try:
        importlib.import_module(name)
    except (Exception, SystemExit):
        traceback.print_exc()
        sys.stderr.write("nimbus: %s is not imported ahead: every run imports it itself\n" % name)


def fork_spare(supervisor: int) -> bool:
    """Fork a child of the supervisor; return True in it and False here."""
    with warnings.catch_warnings():
        # That threads of libraries are not forked along is theirs to know.
        warnings.simplefilter("ignore")
        try:
            middle = os.fork()
        except OSError as error:
            sys.stderr.write("nimbus: no process can be forked: %s\n" % error)
            return False
        if middle:
            os.waitpid(middle, 0)
            return False
        middle = os.getpid()
        try:
            is_middle = os.fork() != 0
        except OSError:
            is_middle = True
    if is_middle:
        # Whoever lost its parent becomes a child of the supervisor, which collects orphans.
        os._exit(0)
    while os.getppid() == middle:
        time.sleep(0.0005)
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:
        os._exit(127)
    return True


def unix_socket(descriptor: int) -> socket.socket:
    """Return a socket that was inherited or received."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)


def receive(own: socket.socket) -> "tuple[bytes, list[int]]":
    """Return a message and the descriptors that came with it."""
    descriptors = array.array("i")
    message, ancillary, _, _ = own.recvmsg(1, socket.CMSG_SPACE(3 * descriptors.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return message, list(descriptors)


if __name__ == "__main__":
    main(sys.argv)
