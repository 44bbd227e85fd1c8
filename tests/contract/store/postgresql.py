"""A PostgreSQL server of our own, for as long as it is needed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["programs", "server"]


def programs() -> Path | None:
    """Return where PostgreSQL's programs are; Debian keeps them out of PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@contextmanager
def server(binaries: Path, *, is_durable: bool, parent: Path | None = None) -> Iterator[str]:
    """Run a server that listens on a Unix socket only; yield the URL of its database.

    Its files are in a directory of their own in ``parent``, without it where such files go.
    """
    with TemporaryDirectory(prefix="nimbus-postgresql-", dir=parent) as directory:
        data = Path(directory) / "data"
        # PostgreSQL refuses to run as root; Debian's package brings an account for it.
        account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if account is not None:
            os.chown(directory, account.pw_uid, account.pw_gid)
        user = None if account is None else account.pw_name

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [str(binaries / program), "-D", str(data), *arguments],
                user=user,
                cwd=directory,
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=60,
            )

        run("initdb", "-A", "trust", "-U", "nimbus", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={directory}"
        fsync = "on" if is_durable else "off"
        run("pg_ctl", "-w", "-l", f"{directory}/log", "-o", f"{options} -c fsync={fsync}", "start")
        try:
            yield f"postgresql://nimbus@/postgres?host={directory}"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
