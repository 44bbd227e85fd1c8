"""Has something done to a module as soon as a script imports it, and not before.

A runner that imported a framework itself would keep a script waiting that prints long before
it does so, and would have read variables that the script means to set.

Python 3.6 and later, standard library only.
"""

import importlib.util
import sys

__all__ = ["when_imported"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Callable


def when_imported(name: str, then: "Callable[[Any], None]") -> None:
    """Call something with a module once it is imported, now if it is."""
    if name in sys.modules:
        then(sys.modules[name])
    else:
        sys.meta_path.insert(0, Finder(name, then))


class Finder:
    """Finds one module as python does, to be changed after it was loaded."""

    def __init__(self, name: str, then: "Callable[[Any], None]") -> None:
        self.name = name
        self.then = then

    def find_spec(self, name: str, *_: object) -> "ModuleSpec | None":
        """Return where the module is; nothing for any other one."""
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(name)
        if found is not None and found.loader is not None:
            load = found.loader.exec_module

            def load_and_change(module: "ModuleType") -> None:
                load(module)
                self.then(module)

            found.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return found
