"""What the handlers work with."""

from __future__ import annotations

from dataclasses import dataclass

from nimbus_hub.api.identity import Identity
from nimbus_hub.control.control import Control

__all__ = ["Services"]


@dataclass(frozen=True, slots=True)
class Services:
    """The control layer, and who finds out who calls; the first that knows a token wins."""

    control: Control
    identities: tuple[Identity, ...]
