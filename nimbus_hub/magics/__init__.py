"""Nimbus from a notebook cell: ``%load_ext nimbus_hub.magics``.

Sessions load it by themselves. Every magic says what it takes with ``?``, as in
``%nimbus_run?``.
"""

from __future__ import annotations

from typing import Any

from nimbus_hub.magics.extension import load

__all__ = ["load_ipython_extension"]


def load_ipython_extension(shell: Any) -> None:
    """Register the magics with an IPython shell."""
    load(shell)
