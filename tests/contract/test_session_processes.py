"""What a session has started is found at its end, wherever it has gone."""

from __future__ import annotations

import os
import subprocess
import uuid

from nimbus_spawner.local import marked

from nimbus_hub.up.processes import ProcessRecord


def test_a_process_that_left_the_sessions_tree_is_found_by_its_lease() -> None:
    lease_id = f"l-{uuid.uuid4().hex}"
    # The shell ends at once, and init takes over what it has started.
    shell = subprocess.run(
        ["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!"],
        env={**os.environ, "NIMBUS_LEASE_ID": lease_id},
        capture_output=True,
        text=True,
        check=True,
    )
    left = ProcessRecord.of(int(shell.stdout))
    try:
        assert marked(lease_id) == [left]
        assert marked("l-other") == []
        assert marked("") == []
    finally:
        left.send(9)
