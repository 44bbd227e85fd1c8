"""The service's own log: a line for each record, and for each request that failed."""

from __future__ import annotations

import logging
from typing import Any

from nimbus_hub.model.text import one_line

__all__ = ["OneLine", "log_request", "start_logging"]

log = logging.getLogger(__name__)


def start_logging(level: int) -> None:
    """Have all records of a level and above written to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)


class OneLine(logging.Formatter):
    """Writes each record as one line, whatever names and reasons are in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the record's line; a traceback follows it as it is."""
        return one_line(super().formatMessage(record))


def log_request(handler: Any) -> None:
    """Log a request that failed by our fault; of all others there would be too many."""
    if handler.get_status() >= 500:
        log.error("%s %s: %d", handler.request.method, handler.request.path, handler.get_status())
