"""A user's program in a process that is forked and not started: as ``python`` would run it.

To the user's eye the process is one that ``python`` has just started, but for what is
imported: a new ``__main__``, its own arguments, environment, directory and search path,
tracebacks without a line of ours, and python's own way to end. What would be seen to differ
is not run this way; `forkserver` asks here, and says so.

Python 3.6 and later, standard library only.
"""

# ruff: noqa: BLE001, PTH113, PTH116, PTH117, PTH118, PTH120, PTH123, PTH208, SIM105

import builtins
import importlib.machinery
import os
import runpy
import stat
import sys
import time
import types

__all__ = [
    "Program",
    "find_program",
    "is_same_program",
    "module_names",
    "names_in",
    "read_at_start",
    "search_path",
    "target_of",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

READ_AT_START = (
    *("ATEN_", "BLIS_", "CUBLAS_", "CUDA_", "CUDNN_", "GLIBC_", "GOMP_", "JAX_", "KERAS_"),
    *("KMP_", "LANG", "LC_", "LD_", "MALLOC_", "MKL_", "NUMEXPR_", "NVIDIA_", "OMP_"),
    *("OPENBLAS_", "PYTHON", "PYTORCH_", "TF_", "TORCH_", "XLA_"),
)
"""How variables begin that python, the C library or frameworks read once."""
READ_LATER = {"PYTHONPATH", "PYTORCH_TIMEOUT", "TF_CONFIG", "TORCH_NCCL_ASYNC_ERROR_HANDLING"}
"""Exceptions to this: read by our runners, or by PyTorch for each group that is made.

What python does with its own, a program does itself.
"""

TORCH_SEED = 67280421310721


class Program:
    """A script or module with its arguments, as ``python`` would run it."""

    def __init__(
        self,
        spec: "dict[str, Any]",
        target: "tuple[bool, str, list[str]]",
        executable: str,
        cwd: str,
        env: "dict[str, str]",
    ) -> None:
        self.spec = spec
        self.is_module, self.name, self.arguments = target
        self.executable = executable
        self.cwd = cwd
        self.env = env
        self.path = os.path.join(cwd, self.name)
        self.source = b""
        self.folder = cwd if self.is_module else os.path.dirname(os.path.realpath(self.path))
        self.sys_path = list(sys.path)
        self.has_debugger = env.get("NIMBUS_PDB") == "1" and bool(spec.get("has_input"))

    def replace_search_path(self, old: "list[str]", new: "list[str]") -> None:
        """Take other directories of PYTHONPATH than those this process was started with."""
        self.sys_path = new + [folder for folder in sys.path if folder not in old]

    def is_readable(self) -> bool:
        """Read a script; tell whether it is one: archives and the like are left to python."""
        if not os.access(self.cwd, os.X_OK):
            return False
        if self.is_module:
            return True
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                return False
            with open(self.path, "rb") as file:
                self.source = file.read()
        except OSError:
            return False
        return b"\0" not in self.source

    def enter(self, reader: int, log: int) -> None:
        """Make this process the run's: its streams, directory, environment and seeds."""
        for target, source in enumerate((reader, log, log)):
            os.dup2(source, target)
        os.close(reader)
        os.close(log)
        os.umask(self.spec.get("umask", 0o022))
        os.chdir(self.cwd)
        zone = os.environ.get("TZ")
        os.environ.clear()
        os.environ.update(self.env)
        if zone != self.env.get("TZ"):
            time.tzset()
        sys.path[:] = self.sys_path
        if not getattr(sys.flags, "safe_path", False):
            sys.path.insert(0, self.folder)
        sys.executable = self.executable
        sys.argv[:] = ["-m" if self.is_module else self.name, *self.arguments]
        if hasattr(sys, "orig_argv"):
            sys.orig_argv[:] = self.spec["argv"]
        refresh_modules(self.cwd)

    def run(self, own: "socket.socket") -> None:
        """Run it, and end as python would."""
        if self.has_debugger:
            # For runners of ours, which show failures themselves and have a module of their own
            # by this name.
            sys.nimbus_debugger = lambda trace: debug(trace, own)  # type: ignore[attr-defined]
        else:
            own.close()
        # The module itself stays: others know it, some by another name.
        namespace = sys.modules["__main__"].__dict__
        namespace.clear()
        names = ("__doc__", "__loader__", "__package__", "__spec__")
        namespace.update(dict.fromkeys(names), __name__="__main__", __builtins__=builtins)
        if sys.version_info < (3, 14):
            namespace["__annotations__"] = {}
        try:
            if self.is_module:
                runpy._run_module_as_main(self.name)  # type: ignore[attr-defined]
            else:
                # Since 3.9 python makes a script's path absolute.
                path = self.path if sys.version_info >= (3, 9) else self.name
                loader = importlib.machinery.SourceFileLoader("__main__", path)
                namespace.update(__file__=path, __cached__=None, __loader__=loader)
                exec(compile(self.source, path, "exec", 0, True), namespace)
        except SystemExit:
            raise
        except BaseException as error:
            failure = error
        else:
            return
        # No more in the handling of it, as a hook or the debugger could see.
        failure.__traceback__ = trace = without_our_frames(failure.__traceback__)
        show(failure)
        if self.has_debugger and trace is not None:
            debug(trace, own)
        # Python itself does the rest, and knows which exit code is right.
        sys.excepthook = say_nothing
        raise failure


def target_of(argv: "list[str]") -> "tuple[bool, str, list[str]] | None":
    """Return whether a command of python is a module, its name and its arguments.

    None for what is neither a script nor a module, or has other options than ``-u``.
    """
    rest = argv[1:]
    while rest and rest[0] == "-u":
        rest = rest[1:]
    if len(rest) > 1 and rest[0] == "-m":
        return True, rest[1], rest[2:]
    if rest and rest[0] and not rest[0].startswith("-"):
        return False, rest[0], rest[1:]
    return None


def find_program(name: str, path: str) -> str:
    """Return where the program is that a name on PATH means, "" if nowhere."""
    if "/" in name:
        return name
    for folder in path.split(os.pathsep):
        found = os.path.join(folder, name)
        if folder and os.access(found, os.X_OK) and os.path.isfile(found):
            return found
    return ""


def is_same_program(path: str, other: str) -> bool:
    """Tell whether two paths are one python of one environment, perhaps by another name."""
    is_near = os.path.isabs(path) and os.path.dirname(path) == os.path.dirname(other)
    return is_near and os.path.realpath(path) == os.path.realpath(other)


def read_at_start(names: "Any") -> "list[str]":
    """Return those variables that have had their effect once a process runs."""
    return [name for name in names if name.startswith(READ_AT_START) and name not in READ_LATER]


def search_path(env: "dict[str, str]", cwd: str) -> "list[str]":
    """Return the directories of PYTHONPATH, each once."""
    text = env.get("PYTHONPATH", "")
    found = []  # type: list[str]
    for folder in text.split(os.pathsep) if text else ():
        folder = os.path.normpath(os.path.join(cwd, folder))
        if folder not in found:
            found.append(folder)
    return found


def names_in(folder: str) -> "list[str]":
    """Return what is in a directory; nothing if it is none."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def module_names(folder: str) -> "set[str]":
    """Return the names of the modules and packages in a directory."""
    suffixes = tuple(importlib.machinery.all_suffixes())
    found = set()
    for name in names_in(folder):
        if name.endswith(suffixes):
            found.add(name.partition(".")[0])
        elif os.path.isfile(os.path.join(folder, name, "__init__.py")):
            found.add(name)
    return found


def refresh_modules(cwd: str) -> None:
    """Renew what modules keep for themselves that a new process would not share."""
    if "random" in sys.modules:
        sys.modules["random"].seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "torch" in sys.modules:
        generator = sys.modules["torch"].default_generator
        # Once this was the seed of every process, and then it is meant to be.
        if generator.initial_seed() != TORCH_SEED:
            generator.seed()
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]
    if "multiprocessing.process" in sys.modules:
        sys.modules["multiprocessing.process"].ORIGINAL_DIR = cwd  # type: ignore[attr-defined]


def without_our_frames(trace: "types.TracebackType | None") -> "types.TracebackType | None":
    """Return what a traceback says of the user's program, from its caller's point of view."""
    ours = set()
    frame = sys._getframe()  # type: types.FrameType | None
    while frame is not None:
        ours.add(frame.f_code.co_filename)
        frame = frame.f_back
    while trace is not None and trace.tb_frame.f_code.co_filename in ours:
        trace = trace.tb_next
    return trace


def show(error: BaseException) -> None:
    """Report an uncaught exception as python does, through the user's hook if there is one."""
    arguments = type(error), error, error.__traceback__
    sys.last_type, sys.last_value, sys.last_traceback = arguments
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        sys.excepthook(*arguments)
    except Exception as problem:
        sys.stderr.write("Error in sys.excepthook:\n")
        problem.__traceback__ = without_our_frames(problem.__traceback__)
        sys.__excepthook__(type(problem), problem, problem.__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(*arguments)


def debug(trace: "types.TracebackType", own: "socket.socket") -> None:
    """Let the user look at what is left of a program, over standard input and output."""
    try:
        own.sendall(b'{"is_debugging": true}\n')
    except OSError:
        pass
    # Not before: no other run has use for it.
    import pdb

    pdb.post_mortem(trace)


def say_nothing(*arguments: object) -> None:
    """Take the place of a hook whose work is done."""
