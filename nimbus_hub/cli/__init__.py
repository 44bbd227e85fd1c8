"""Nimbus from a terminal."""

import sys

# httpx imports its own command line, with rich and pygments, when they are there: a third of
# the time that these commands take to start. None makes it go without, which it can.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
