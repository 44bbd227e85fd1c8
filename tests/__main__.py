"""`python -m tests [OPTIONS OF PYTEST]`: all tests, in two halves at once.

Most of the time a test waits for something, so that two cores have room for two of them. What
the second half says is printed when the first one is over.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_SECOND = [str(_TESTS / "frameworks"), str(_TESTS / "docker")]
_FINE = {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}


def main(options: list[str]) -> int:
    """Run both halves; return pytest's exit code of the first that failed."""
    command = [sys.executable, "-m", "pytest", *options]
    first = [*command, *(f"--ignore={path}" for path in _SECOND), str(_TESTS)]
    with tempfile.TemporaryFile() as said:
        second = subprocess.Popen([*command, *_SECOND], stdout=said, stderr=subprocess.STDOUT)
        try:
            codes = [subprocess.run(first, check=False).returncode, second.wait()]
        finally:
            # An interrupt in a terminal reaches both; here it is waited for what they end.
            second.wait()
            said.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(said.read())
    return next((code for code in codes if code not in _FINE), min(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
