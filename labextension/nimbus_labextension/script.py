"""The user's own script before a session is taken away: ``~/.nimbus/before-reclaim``.

It runs as the user, in the home directory, in a process group of its own, for at most a
minute: then the group gets SIGTERM, and SIGKILL a moment later. What it writes is kept in
``~/.nimbus/before-reclaim.log`` with dates and exit code, and bounded.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from nimbus_hub.client.environment import with_variables
from nimbus_hub.clock import SystemClock

__all__ = ["LONGEST_SECONDS", "Script"]

LONGEST_SECONDS = 60.0
"""How long the service is asked to wait."""

_TERM_SECONDS = 55.0
_KILL_SECONDS = 4.0
"""From SIGTERM to SIGKILL: what became of it is told before the minute is over."""
_MOST_BYTES = 2**20
_LAST_OUTPUT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Script:
    """The script of the user whose home this is."""

    home: Path = field(default_factory=Path.home)
    term_seconds: float = _TERM_SECONDS
    kill_seconds: float = _KILL_SECONDS

    @property
    def path(self) -> Path:
        """Return where the script is looked for."""
        return self.home / ".nimbus" / "before-reclaim"

    @property
    def log(self) -> Path:
        """Return where its output is kept."""
        return self.home / ".nimbus" / "before-reclaim.log"

    @property
    def is_there(self) -> bool:
        """Tell whether there is a script that can be run."""
        return self.path.is_file() and os.access(self.path, os.X_OK)

    def run(self, variables: Mapping[str, str], why: str) -> str:
        """Run the script to its end or its bound; return the outcome for people.

        ``why`` stands in the log.
        """
        with self._open_log() as log:
            _write_line(log, why)
            outcome = self._outcome(variables, log)
            _write_line(log, outcome)
        is_fine = outcome == "exit code 0"
        return outcome if is_fine else f"{outcome}, see ~/.nimbus/before-reclaim.log"

    def _outcome(self, variables: Mapping[str, str], log: IO[bytes]) -> str:
        try:
            process = subprocess.Popen(
                [str(self.path)],
                cwd=self.home,
                env=with_variables(variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return f"could not be started ({error.strerror})"
        assert process.stdout is not None
        reader = threading.Thread(target=_copy, args=(process.stdout, log), daemon=True)
        reader.start()
        is_late = not self._ends(process)
        # What it left behind may hold its output open for ever.
        reader.join(_LAST_OUTPUT_SECONDS)
        if is_late:
            return f"stopped after {self.term_seconds:g} s"
        code = process.returncode
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _ends(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for the end, and see to it; tell whether it came by itself."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.term_seconds)
            return True
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.kill_seconds)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return False

    def _open_log(self) -> IO[bytes]:
        """Open the log to add to it; of what was before only the end is kept."""
        with suppress(OSError):
            if self.log.stat().st_size > _MOST_BYTES:
                self.log.write_bytes(self.log.read_bytes()[-_MOST_BYTES // 2 :])
        try:
            return self.log.open("ab", buffering=0)
        except OSError:  # a full disk, most of all, is when the script is needed
            return Path(os.devnull).open("ab", buffering=0)


def _write_line(log: IO[bytes], text: str) -> None:
    now = SystemClock().now().isoformat(timespec="seconds")
    with suppress(OSError):
        log.write(f"== {now} {text}\n".encode())


def _copy(output: IO[bytes], log: IO[bytes]) -> None:
    """Copy output into the log, and drop what is too much; the writer must not be held up."""
    left = _MOST_BYTES
    with output, suppress(ValueError):  # the log is closed by now
        while chunk := os.read(output.fileno(), 2**16):
            with suppress(OSError):
                log.write(chunk[:left])
                if 0 < left <= len(chunk):
                    log.write(b"\n== the rest of the output is not kept\n")
            left = max(0, left - len(chunk))
