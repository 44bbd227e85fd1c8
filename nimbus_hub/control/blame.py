"""Blame: which replica an attempt failed for, and how it ended, in words for people."""

from __future__ import annotations

from collections.abc import Sequence

from nimbus_hub.control.inventory import Inventory
from nimbus_hub.errors import Unavailable
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.text import one_line

__all__ = ["Blame", "how"]

_LAST_LINES = 5
_TAIL_BYTES = 4096


class Blame:
    """Says who failed, and what it wrote last."""

    def __init__(self, inventory: Inventory) -> None:
        """Find what was written by ``inventory``."""
        self._inventory = inventory

    async def words(self, culprit: Replica | None, replicas: Sequence[Replica]) -> str:
        """Return which replica failed, how, and its last lines."""
        if culprit is None:
            return "the job failed"
        others = "; the others were stopped" if len(replicas) > 1 else ""
        sentence = f"{culprit.name} on {culprit.host} {how(culprit)}{others}"
        lines = await self._last_lines(culprit)
        return "\n  ".join([f"{sentence}. Its last lines:", *lines]) if lines else sentence

    async def _last_lines(self, replica: Replica) -> list[str]:
        try:
            executor = self._inventory.keeper(replica.host, replica.id)
            chunk = await executor.read_output(replica.id, -_TAIL_BYTES, _TAIL_BYTES)
        except Unavailable:
            return []
        text = chunk.data.decode(errors="replace")
        # Others read the reason in a terminal: what a program printed must not act there.
        lines = map(one_line, text.splitlines())
        return [line for line in lines if line][-_LAST_LINES:]


def how(replica: Replica) -> str:
    """Say how a replica ended."""
    if replica.state is ReplicaState.LOST:
        return f"was lost: {replica.reason}"
    if replica.exit_code is None:
        return f"did not run: {replica.reason}" if replica.reason else "did not run"
    code = replica.exit_code
    ended = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
    return f"{ended} ({replica.reason})" if replica.reason else ended
