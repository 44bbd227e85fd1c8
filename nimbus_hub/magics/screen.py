"""What IPython shows below a cell, with types."""

from __future__ import annotations

from collections.abc import Mapping

from IPython import get_ipython
from IPython.display import display, update_display

__all__ = ["Bundle", "has_widgets", "show", "show_instead"]

Bundle = Mapping[str, object]
"""One thing in several MIME types; the front end takes the richest one it knows."""


def show(bundle: Bundle, identity: str | None = None) -> None:
    """Show a bundle; ``identity`` lets it be replaced later."""
    display(bundle, raw=True, display_id=identity)  # type: ignore[no-untyped-call]


def show_instead(bundle: Bundle, identity: str) -> None:
    """Put a bundle in the place of an earlier one."""
    update_display(bundle, raw=True, display_id=identity)  # type: ignore[no-untyped-call]


def has_widgets() -> bool:
    """Tell whether a front end could show widgets: whether there is a kernel."""
    return getattr(get_ipython(), "kernel", None) is not None
