"""What a script imports, read from its text: the service knows the framework by it.

Nothing is run. Modules of the working directory that the script imports are read too, within
bounds; what cannot be read or is no Python is passed over, for the job will show it.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from nimbus_hub.client.requests import JobRequest

__all__ = ["imports_of", "with_imports"]

_MOST_FILES = 200
_MOST_BYTES = 2**20
_MOST_NAMES = 500
_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)
"""What statements may be in."""

_NO_TEXTS: Mapping[str, str] = {}


def with_imports(
    request: JobRequest, workdir: Path, texts: Mapping[str, str] = _NO_TEXTS
) -> JobRequest:
    """Return a request that names no framework with what its script imports."""
    if request.framework is not None or request.gang is not None:
        return request
    return replace(request, imports=imports_of(request.argv, workdir, texts))


def imports_of(
    argv: Sequence[str], workdir: Path, texts: Mapping[str, str] = _NO_TEXTS
) -> tuple[str, ...]:
    """Return the packages that a command's Python script imports, in the order they are met.

    ``texts`` are files by path that are not in ``workdir``. Neither modules of the working
    directory nor those of the standard library are named.
    """
    files = _Files(workdir, texts)
    base, started = _start(argv)
    found: dict[str, None] = {}
    pending = deque(path for path in started if files.has(path))
    seen = set(pending)
    while pending and len(seen) <= _MOST_FILES:
        path = pending.popleft()
        for name, dots in _imported(files.text(path)):
            folder = path.parents[min(dots, len(path.parents)) - 1] if dots else base
            local = [each for each in _candidates(folder, name) if files.has(each)]
            if not local and not dots:
                found.setdefault(name.partition(".")[0])
            pending += [each for each in local if each not in seen]
            seen.update(local)
    return tuple(name for name in found if name not in sys.stdlib_module_names)[:_MOST_NAMES]


class _Files:
    """The texts of a working directory by their paths within it."""

    def __init__(self, workdir: Path, texts: Mapping[str, str]) -> None:
        self._root = workdir.resolve()
        self._texts = texts

    def has(self, path: PurePosixPath) -> bool:
        """Tell whether there is such a file."""
        return str(path) in self._texts or (self._root / path).is_file()

    def text(self, path: PurePosixPath) -> bytes:
        """Return what is in a file; nothing if it cannot be read or is very large."""
        if str(path) in self._texts:
            return self._texts[str(path)].encode(errors="replace")
        try:
            with (self._root / path).open("rb") as file:
                text = file.read(_MOST_BYTES + 1)
        except OSError:
            return b""
        return text if len(text) <= _MOST_BYTES else b""


def _start(argv: Sequence[str]) -> tuple[PurePosixPath, list[PurePosixPath]]:
    """Return where a command's imports are looked for first, and what files it begins with."""
    top, nothing = PurePosixPath(), list[PurePosixPath]()
    if not PurePosixPath(argv[0]).name.startswith("python"):
        return top, nothing
    for place, word in enumerate(argv[1:], 2):
        if word == "-c":
            break
        if word == "-m":
            module = "".join(argv[place : place + 1])
            run = top / module.replace(".", "/") / "__main__.py"
            return top, [*_candidates(top, module), run] if module else nothing
        path = PurePosixPath(word)
        if path.suffix == ".py" and not path.is_absolute() and ".." not in path.parts:
            return path.parent, [path]
    return top, nothing


def _candidates(folder: PurePosixPath, name: str) -> list[PurePosixPath]:
    """Return where a module may be, and the packages around it."""
    found = []
    for part in name.split("."):
        folder /= part
        found += [folder / "__init__.py", folder.with_name(f"{folder.name}.py")]
    return found


def _imported(text: bytes) -> Iterator[tuple[str, int]]:
    """Yield what a text imports: a dotted name, and the dots before it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    pending = deque[ast.AST]([tree])
    while pending:
        node = pending.popleft()
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # What is imported may be a module itself.
            for alias in node.names:
                yield ".".join(filter(None, (node.module, alias.name))), node.level
        elif isinstance(node, ast.If) and _is_for_checkers(node.test):
            pending += node.orelse
        else:
            pending += (each for each in ast.iter_child_nodes(node) if isinstance(each, _BLOCKS))


def _is_for_checkers(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"
