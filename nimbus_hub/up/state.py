"""The state directory of a hub: where everything that must be found again is kept.

Files that hold a secret are created for their owner alone, and replaced in one step, so
that a reader never sees half of one.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

__all__ = [
    "Addresses",
    "State",
    "checkout",
    "default_directory",
    "read_json",
    "write_private",
    "write_private_json",
]


def checkout() -> Path | None:
    """Return the root of the source tree this package runs from, or None when installed."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "jupyterhub_config.py").is_file() else None


def default_directory() -> Path:
    """Return where the state is kept if nobody says otherwise."""
    root = checkout()
    return root / ".nimbus" if root else Path("~/.local/share/nimbus-hub").expanduser()


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the hub and its parts listen. All but the first two are for this machine only.

    They are kept over restarts: sessions that go on know the hub under them.
    """

    ip: str
    port: int
    hub_port: int
    proxy_api_port: int
    service_port: int

    @property
    def url(self) -> str:
        """Return the address for a browser on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}.get(self.ip, self.ip)
        return f"http://{host}:{self.port}"

    @property
    def api_url(self) -> str:
        """Return the base address of the service as users and jobs see it."""
        return f"{self.url}/services/nimbus"

    @property
    def service_url(self) -> str:
        """Return where the service itself listens, without the proxy's detour."""
        return f"http://127.0.0.1:{self.service_port}"


@dataclass(frozen=True, slots=True)
class State:
    """A state directory and the names in it."""

    directory: Path

    @classmethod
    def from_environment(cls) -> Self:
        """Return the directory that NIMBUS_HUB_STATE names, or the default one, and create it."""
        named = os.environ.get("NIMBUS_HUB_STATE")
        state = cls((Path(named) if named else default_directory()).absolute())
        state.create()
        return state

    def create(self) -> None:
        """Make the directory, for its owner alone to list; a second time is harmless."""
        self.directory.mkdir(parents=True, exist_ok=True)
        # Others may pass through: system users run replicas below it.
        self.directory.chmod(0o711)
        for private in (self.secrets, self.sessions):
            private.mkdir(exist_ok=True)
            private.chmod(0o700)
        for private in (self.hub_log, self.database):
            private.touch(mode=0o600)

    @property
    def secrets(self) -> Path:
        """Return the directory of tokens and the password's hash."""
        return self.directory / "secrets"

    @property
    def sessions(self) -> Path:
        """Return the directory of the sessions' logs and process records."""
        return self.directory / "sessions"

    @property
    def proxy(self) -> Path:
        """Return where the proxy is installed."""
        return self.directory / "proxy"

    @property
    def hub_log(self) -> Path:
        """Return the log of the hub and the proxy."""
        return self.directory / "hub.log"

    @property
    def hub_record(self) -> Path:
        """Return the file that says which process is the hub."""
        return self.directory / "hub.json"

    @property
    def service_record(self) -> Path:
        """Return the file that says which process is the service."""
        return self.directory / "service.json"

    @property
    def hub_pid(self) -> Path:
        """Return the file with the hub's pid."""
        return self.directory / "hub.pid"

    @property
    def proxy_pid(self) -> Path:
        """Return the file with the proxy's pid."""
        return self.directory / "proxy.pid"

    @property
    def database(self) -> Path:
        """Return the file of JupyterHub's own database."""
        return self.directory / "jupyterhub.sqlite"

    def addresses(self) -> Addresses | None:
        """Return the addresses of the last start, or None before the first."""
        try:
            return Addresses(**read_json(self.directory / "addresses.json"))
        except TypeError:
            return None

    def keep_addresses(self, addresses: Addresses) -> None:
        """Keep the addresses for the next start."""
        write_private_json(self.directory / "addresses.json", asdict(addresses))

    def config(self) -> str:
        """Return the person's own configuration of the last start, or nothing."""
        return str(read_json(self.directory / "config.json").get("path", ""))

    def keep_config(self, config: Path | None) -> None:
        """Keep where the configuration is: it may say where the database is."""
        path = str(config.absolute()) if config is not None else ""
        write_private_json(self.directory / "config.json", {"path": path})


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from a JSON file; a missing or broken one is empty."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_private_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file for the owner alone, in one step."""
    write_private(path, json.dumps(content) + "\n")


def write_private(path: Path, text: str) -> None:
    """Write a file for the owner alone, in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(name).replace(path)
