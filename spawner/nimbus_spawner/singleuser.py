"""Entry point of a session's server: `python -m nimbus_spawner.singleuser`.

Over half of the time until JupyterLab's server listens goes into things no session needs:

- the import of a grammar of international addresses, which jsonschema would check "iri"
  formats with if it were there. Nothing the server validates has such a format, so it is
  hidden before the import.
- a run of node at the import of JupyterLab, which asks yarn for the registry to build
  JupyterLab's own pages from. JupyterLab goes without where there is no node on PATH, so
  there is none while it is imported; the server and its kernels have their PATH again.

- the hub's own database: a session's server shares modules with the hub, which import SQLAlchemy,
  alembic, the tables and the hub's pages, for functions that a session never calls. They get
  stand-ins while those modules are imported, and whoever wants the real ones later has them.

Imports make hundreds of thousands of objects that stay, and looking through them for garbage
again and again is another tenth: it is put off until they are there.
"""

import gc
import importlib
import os
import sys
from types import ModuleType

__all__ = ["import_server", "main"]


_STAND_INS: dict[str, dict[str, object]] = {
    "jupyterhub.handlers": {},
    # To write less of them into the log: a session has none.
    "jupyterhub.handlers.pages": {"HealthCheckHandler": type("HealthCheckHandler", (), {})},
    "jupyterhub.orm": {},
    "sqlalchemy": {"__path__": [], "func": None},
    "sqlalchemy.exc": {"SQLAlchemyError": type("SQLAlchemyError", (Exception,), {})},
}
"""What modules of the hub have at their import of what is the hub's alone."""
_SHARED = ("jupyterhub.utils", "jupyterhub.scopes", "jupyterhub.log")


def import_server() -> None:
    """Import the server without what is slow and of no use to a session."""
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    path = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = os.devnull  # an empty one would mean the system's
    try:
        importlib.import_module("jupyterlab.labapp")
    finally:
        os.environ["PATH"] = path
    _import_shared()
    # Only now: importing it imports what is hidden above.
    importlib.import_module("jupyterhub.singleuser")


def _import_shared() -> None:
    """Import what hub and session share, without the hub's database."""
    if not sys.modules.keys().isdisjoint({*_STAND_INS, *_SHARED}):
        return
    for name, values in _STAND_INS.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(values)
    try:
        for name in _SHARED:
            importlib.import_module(name)
    except (AttributeError, ImportError):
        # Another JupyterHub asks for more: it has all of it, and takes longer.
        for name in [name for name in sys.modules if name.startswith("jupyterhub.")]:
            del sys.modules[name]
    finally:
        for name in _STAND_INS:
            sys.modules.pop(name, None)


def main() -> None:
    """Run jupyterhub-singleuser; what is imported already is not imported again."""
    gc.disable()
    import_server()
    gc.freeze()
    gc.enable()
    sys.modules["jupyterhub.singleuser"].main()


if __name__ == "__main__":
    main()
