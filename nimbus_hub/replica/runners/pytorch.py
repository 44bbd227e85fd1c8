"""Runs a script as one of an elastic world, below the agent of ``torch.distributed.run``.

The world changes, and with it who is who: what the agent says of this world is told as
Nimbus Hub's own variables too, for `nimbus_hub.distributed` and scripts that read them.

Python 3.6 and later, standard library only.
"""

import os

from nimbus_hub.replica.runners import script

__all__ = ["main"]


def main(arguments: "list[str]") -> None:
    """Take this process's place in the world, then run the script."""
    os.environ["NIMBUS_RANK"] = os.environ["RANK"]
    os.environ["NIMBUS_WORLD_SIZE"] = os.environ["WORLD_SIZE"]
    script.run(arguments)
