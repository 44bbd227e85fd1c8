"""The process that serves TensorBoard for a session, until whoever started it is gone.

Its options come as one line of JSON on standard input, because a command line can be
read by every user of the machine and the path prefix in it is a secret. The address goes
to standard output. The end of standard input is the end of the process: the starter holds
the other end of that pipe, so nothing is left however a kernel or a terminal dies.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

__all__ = ["main"]


def main() -> None:
    """Serve until standard input ends."""
    options = json.loads(sys.stdin.readline())
    program = import_module("tensorboard.program")
    server = program.TensorBoard()
    server.configure(argv=["tensorboard", *options])
    try:
        address = server.launch()
    except program.TensorBoardServerException as error:  # the port is taken
        sys.exit(error.msg)
    sys.stdout.write(address + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
