"""Shapes: what one slot takes of a host, whoever asks for it. Equal shapes fit equally."""

from __future__ import annotations

from typing import NamedTuple, Self

from nimbus_hub.model.slot import SlotGroup

__all__ = ["Shape"]


class Shape(NamedTuple):
    """The size of a slot. ``models`` are the GPU models allowed, sorted; none means any."""

    cpus_milli: int
    memory_bytes: int
    gpus: int = 0
    gpu_milli: int = 1000
    models: tuple[str, ...] = ()

    @classmethod
    def of(cls, group: SlotGroup) -> Self:
        """Return the shape of a group's slots."""
        return cls(
            group.cpus_milli,
            group.memory_bytes,
            group.gpus,
            group.gpu_milli if group.gpus else 1000,
            tuple(sorted(group.gpu_models)),
        )

    @property
    def all_gpus_milli(self) -> int:
        """Return the GPUs one slot takes, in thousandths."""
        return self.gpus * self.gpu_milli
