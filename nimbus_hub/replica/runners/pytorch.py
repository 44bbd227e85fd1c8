"""Runs a script as one worker of many.

Its process groups wait for a worker that hangs for PYTORCH_TIMEOUT seconds, unless it says
otherwise: PyTorch itself has gloo wait for half an hour.

Below the agent of ``torch.distributed.run`` the world changes, and with it who is who: what the
agent says of this world is told as Nimbus Hub's own variables too, for `nimbus_hub.distributed`
and scripts that read them.

Python 3.6 and later, standard library only.
"""

import os
import sys
from datetime import timedelta

from nimbus_hub.replica.runners import script
from nimbus_hub.replica.runners.imported import when_imported

__all__ = ["main"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

CONSTANTS, USES_THEM = "torch.distributed.constants", "torch.distributed.distributed_c10d"


def main(arguments: "list[str]") -> None:
    """Take this process's place in the world, then run the script."""
    os.environ["NIMBUS_RANK"] = os.environ["RANK"]
    os.environ["NIMBUS_WORLD_SIZE"] = os.environ["WORLD_SIZE"]
    # Who imports the constants has copies of them.
    when_imported(USES_THEM if USES_THEM in sys.modules else CONSTANTS, shorten)
    script.run(arguments)


def shorten(module: "ModuleType") -> None:
    """Have groups without a time-out of their own wait less."""
    seconds = timedelta(seconds=int(os.environ["PYTORCH_TIMEOUT"]))
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
        setattr(module, name, seconds)
