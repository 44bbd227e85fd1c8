"""Runs a script as one worker of many.

Its process groups wait for a worker that hangs for PYTORCH_TIMEOUT seconds, unless it says
otherwise: PyTorch itself has gloo wait for half an hour.

Below the agent of ``torch.distributed.run`` the world changes, and with it who is who: what the
agent says of this world is told as Nimbus Hub's own variables too, for `nimbus_hub.distributed`
and scripts that read them.

Python 3.6 and later, standard library only.
"""

import importlib.machinery
import os
import sys
from datetime import timedelta

from nimbus_hub.replica.runners import script

__all__ = ["main"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

CONSTANTS, USES_THEM = "torch.distributed.constants", "torch.distributed.distributed_c10d"


def main(arguments: "list[str]") -> None:
    """Take this process's place in the world, then run the script."""
    os.environ["NIMBUS_RANK"] = os.environ["RANK"]
    os.environ["NIMBUS_WORLD_SIZE"] = os.environ["WORLD_SIZE"]
    if USES_THEM in sys.modules:
        shorten(sys.modules[USES_THEM])
    else:
        # Not imported here: a script may print long before it needs PyTorch.
        sys.meta_path.insert(0, Shortening)
    script.run(arguments)


def shorten(module: "ModuleType") -> None:
    """Have groups without a time-out of their own wait less."""
    seconds = timedelta(seconds=int(os.environ["PYTORCH_TIMEOUT"]))
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
        setattr(module, name, seconds)


class Shortening:
    """Finds the module with PyTorch's time-outs, and shortens them once it is imported."""

    @staticmethod
    def find_spec(name: str, path: "Any", target: "Any" = None) -> "ModuleSpec | None":
        """Return where that module is; nothing for any other one."""
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == CONSTANTS else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_shorten(module: "ModuleType") -> None:
            run(module)
            shorten(module)

        spec.loader.exec_module = run_and_shorten  # type: ignore[method-assign]
        return spec
