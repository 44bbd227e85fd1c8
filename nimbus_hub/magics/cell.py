"""A notebook cell as a script: text only, nothing of the kernel goes with it.

The text becomes a file of the job's snapshot, not of the user's directory. Its name
cannot be imported, so it never hides a package that the script needs. Line numbers in
the job's tracebacks are those of the cell, the magic's own line included.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass

from nimbus_hub.errors import InvalidRequest

__all__ = ["Script", "script_of_cell"]

_HEADER = "# %%nimbus_run\n"


@dataclass(frozen=True, slots=True)
class Script:
    """A file that is part of the snapshot only."""

    name: str
    text: str


def script_of_cell(body: str) -> Script:
    """Return the script that does what the cell says.

    Raises InvalidRequest for an empty cell and, naming the line, for text that is no
    plain Python: a script has no kernel that could run ``!command`` or ``%magic``.
    """
    if not body.strip():
        raise InvalidRequest("the cell is empty: write the script below %%nimbus_run")
    text = _HEADER + body.rstrip("\n") + "\n"
    _refuse_what_does_not_compile(text)
    return Script(f"cell-{hashlib.sha256(text.encode()).hexdigest()[:8]}.py", text)


def _refuse_what_does_not_compile(text: str) -> None:
    """Raise InvalidRequest unless the text compiles as a module of its own."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "cell", "exec", dont_inherit=True)
    except ValueError as error:  # a null byte
        raise InvalidRequest(f"the cell is no Python script: {error}") from None
    except SyntaxError as error:
        raise InvalidRequest(_sentence(text, error)) from None


def _sentence(text: str, error: SyntaxError) -> str:
    lines = text.splitlines()
    number = min(max(error.lineno or 1, 1), len(lines))
    line = lines[number - 1].strip()
    if _is_ipython(line):
        return (
            f"line {number} of the cell is IPython syntax ({line}), which a script cannot run: "
            "move it to a cell of its own"
        )
    return f"line {number} of the cell is no valid Python script: {error.msg} ({line})"


def _is_ipython(line: str) -> bool:
    """Tell whether a line that Python refuses is one that IPython would take."""
    right = line.partition("=")[2].lstrip()
    return line.startswith(("!", "%", "?")) or line.endswith("?") or right.startswith(("!", "%"))
