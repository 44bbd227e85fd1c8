"""Entry point of a session's server: `python -m nimbus_spawner.singleuser`.

Over half of the time until JupyterLab's server listens goes into two things no session needs:

- the import of a grammar of international addresses, which jsonschema would check "iri"
  formats with if it were there. Nothing the server validates has such a format, so it is
  hidden before the import.
- a run of node at the import of JupyterLab, which asks yarn for the registry to build
  JupyterLab's own pages from. JupyterLab goes without where there is no node on PATH, so
  there is none while it is imported; the server and its kernels have their PATH again.

Imports make hundreds of thousands of objects that stay, and looking through them for garbage
again and again is another tenth: it is put off until they are there.
"""

import gc
import importlib
import os
import sys

__all__ = ["import_server", "main"]


def import_server() -> None:
    """Import the server without what is slow and of no use to a session."""
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    path = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = os.devnull  # an empty one would mean the system's
    try:
        importlib.import_module("jupyterlab.labapp")
    finally:
        os.environ["PATH"] = path
    # Only now: importing it imports what is hidden above.
    importlib.import_module("jupyterhub.singleuser")


def main() -> None:
    """Run jupyterhub-singleuser; what is imported already is not imported again."""
    gc.disable()
    import_server()
    gc.freeze()
    gc.enable()
    sys.modules["jupyterhub.singleuser"].main()


if __name__ == "__main__":
    main()
