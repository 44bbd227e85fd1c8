"""Print the API's description: ``python -m nimbus_hub.api.describe > docs/openapi.json``."""

from __future__ import annotations

import json
import sys

from nimbus_hub.api.openapi import describe
from nimbus_hub.api.routes import ROUTES

__all__ = ["description"]


def description() -> str:
    """Return the description as text, the same for the same source."""
    return json.dumps(describe(ROUTES), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(description())
