"""configurable-http-proxy, installed once into the state directory.

The proxy of that name on PyPI is no substitute: it breaks websocket subprotocols.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from nimbus_hub.errors import Unavailable
from nimbus_hub.up.node import Node, find_node
from nimbus_hub.up.state import State, read_json

__all__ = ["forget_foreign_pid", "install_proxy", "proxy_command"]

_PACKAGE = "configurable-http-proxy"
_RANGE = "^5.1.0"


def proxy_command(state: State) -> list[str]:
    """Return the command that starts the installed proxy."""
    return [str(find_node().node), str(_module(state) / "bin" / _PACKAGE)]


def install_proxy(state: State, say: Callable[[str], None]) -> None:
    """Install the proxy if it is not there; say what takes time.

    Raises Unavailable with npm's first lines if the package cannot be had.
    """
    node = find_node()
    if str(read_json(_module(state) / "package.json").get("version", "")).startswith("5."):
        return
    say(f"Installing {_PACKAGE} (once) ...")
    state.proxy.mkdir(exist_ok=True)
    ran = subprocess.run(
        _install_argv(node, state.proxy),
        env={**os.environ, "PATH": f"{node.directory}{os.pathsep}{os.environ.get('PATH', '')}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        said = "\n".join((ran.stderr or ran.stdout).strip().splitlines()[:4])
        raise Unavailable(
            f"npm could not install {_PACKAGE}; is its registry reachable "
            f"(npm config get registry)? npm said:\n{said}"
        )


def forget_foreign_pid(state: State) -> None:
    """Remove the proxy's pid file unless the process it names is our proxy.

    JupyterHub ends whatever has that pid, and pids are given out again.
    """
    try:
        pid = int(state.proxy_pid.read_text())
        argv = psutil.Process(pid).cmdline()
    except (OSError, ValueError, psutil.Error):
        argv = []
    if str(_module(state) / "bin" / _PACKAGE) not in argv:
        state.proxy_pid.unlink(missing_ok=True)


def _module(state: State) -> Path:
    return state.proxy / "node_modules" / _PACKAGE


def _install_argv(node: Node, prefix: Path) -> list[str]:
    options = ["--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    return [*node.npm, "install", *options, "--prefix", str(prefix), f"{_PACKAGE}@{_RANGE}"]
