"""Entry point of a session's server: `python -m nimbus_spawner.singleuser`.

More than half of the time to import JupyterLab's server is one module, a grammar of
international addresses that jsonschema would check "iri" formats with if it were there.
Nothing the server validates has such a format, so it is hidden before the import.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run jupyterhub-singleuser without the slow optional import."""
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    # Only now: importing it imports what the line above hides.
    from jupyterhub.singleuser import main as run

    run()


if __name__ == "__main__":
    main()
