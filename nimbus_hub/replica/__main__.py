"""Runs a program by the runner of a framework: ``python -m nimbus_hub.replica RUNNER ARGS``.

Nothing is done here but to call it: this module's names go to the user's program.
"""

import importlib
import sys

importlib.import_module("nimbus_hub.replica.runners." + sys.argv[1]).main(sys.argv[2:])
