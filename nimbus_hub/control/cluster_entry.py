"""One more engine in the text of a cluster file; all else stays as it was written.

The text is changed where the item goes and nowhere else, so that comments, order and anchors
are kept. What comes of it is read before anybody relies on it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from nimbus_hub.control.cluster import parse_cluster
from nimbus_hub.errors import Conflict, InvalidRequest
from nimbus_hub.model.engine import Engine

__all__ = ["engine_text", "extended"]

_USUAL = Engine("", "unix:///usual")
"""What is as here need not be written."""
_WIDTH = 2**20


def engine_text(engine: Engine) -> str:
    """Return the lines of a cluster file that say this engine alone."""
    return f"engines:\n{indent(_block(engine), '  ')}"


def extended(
    text: str,
    engine: Engine,
    path: Path,
    executors: Collection[str] | None = None,
    sizes: Collection[str] | None = None,
) -> tuple[str, Engine]:
    """Return the text of a cluster file with one more engine, and that engine as it is read.

    Raises Conflict for a file that is refused as it is, and InvalidRequest for an engine with
    which it would be: as `parse_cluster` does, for a file at ``path``.
    """
    try:
        before = parse_cluster(text, path, executors, sizes)
    except InvalidRequest as error:
        raise Conflict(f"the cluster file must be right first: {error.message}") from None
    found = _with_item(text, engine)
    try:
        after = parse_cluster(found, path, executors, sizes)
    except InvalidRequest as error:
        raise InvalidRequest(
            f"with this engine the cluster file would be refused: {error.message}"
        ) from None
    if after != replace(before, engines=(*before.engines, after.engines[-1])):
        raise Conflict(f"an engine cannot be added to {path} as it is written: do it by hand")
    return found, after.engines[-1]


def _with_item(text: str, engine: Engine) -> str:
    """Return the text with an item at the end of ``engines``."""
    given = _engines(text)
    if given is None:
        return _ended(text) + engine_text(engine)
    if isinstance(given, yaml.SequenceNode) and given.flow_style:
        at = given.end_mark.index - 1
        comma = ", " if given.value else ""
        return f"{text[:at]}{comma}{_flow(engine)}{text[at:]}"
    lines = text.splitlines(keepends=True)
    if isinstance(given, yaml.SequenceNode):
        dash = _indent(lines[given.value[0].start_mark.line])
        at = _last_line(given.value[-1]) + 1
        # Comments that are indented as the last item belong to it.
        while at < len(lines) and lines[at].lstrip().startswith("#") and _indent(lines[at]) > dash:
            at += 1
    else:
        dash, at = 2, given.start_mark.line + 1
    before, after = "".join(lines[:at]), "".join(lines[at:])
    return _ended(before) + indent(_block(engine), " " * dash) + after


def _engines(text: str) -> yaml.Node | None:
    """Return what a file says under ``engines``; None if there is no such key."""
    root = yaml.compose(text, yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else ()
    return next((value for key, value in pairs if key.value == "engines"), None)


def _block(engine: Engine) -> str:
    return yaml.safe_dump([_values(engine)], sort_keys=False, allow_unicode=True, width=_WIDTH)


def _flow(engine: Engine) -> str:
    dumped: str = yaml.safe_dump(
        _values(engine), sort_keys=False, allow_unicode=True, width=_WIDTH, default_flow_style=True
    )
    return dumped.strip()


def _values(engine: Engine) -> dict[str, Any]:
    given = {field.name: getattr(engine, field.name) for field in fields(Engine)}
    return {name: value for name, value in given.items() if value != getattr(_USUAL, name)}


def _last_line(node: yaml.Node) -> int:
    """Return the line that the last word of a value is in; a block's own mark is after that."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(node, yaml.MappingNode) else last)
    return int(node.end_mark.line)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"
