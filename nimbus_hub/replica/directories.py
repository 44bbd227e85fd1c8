"""Makes a job's directories in its owner's home, under the owner's account.

Called by a service that runs as root, as
``python -I -S directories.py UID GID GROUPS HOME JOB_ID [work]``, with the working directory
set to the unpacked snapshot if ``work`` is said. Everything below the home is done after
the rights of root are given up, so links that the owner has put there lead nowhere they
could not go themselves. Prints one sentence to standard error if it fails.
Python 3.6 and later, standard library only.
"""

# ruff: noqa: PTH102, PTH103, PTH104, PTH112, PTH118, PTH120

import os
import shutil
import sys

NAMES = ("output", "logs", "checkpoints")
PARTIAL = ".work.partial"


def main(arguments: "list[str]") -> int:
    """Become the account, make the directories, copy the working directory."""
    uid, gid, groups, home, job_id = arguments[1:6]
    os.setgroups([int(group) for group in groups.split(",") if group])
    os.setgid(int(gid))
    os.setuid(int(uid))
    os.umask(0o022)
    try:
        make(os.path.join(home, "nimbus", job_id), arguments[6:] == ["work"])
    except (OSError, shutil.Error) as error:
        sys.stderr.write("%s\n" % error)
        return 1
    return 0


def make(job: str, has_work: bool) -> None:
    """Make what is missing; the working directory appears at once and whole."""
    os.makedirs(os.path.dirname(job), exist_ok=True)
    if not os.path.isdir(job):
        # Copies have plain modes: what was private in a home must not be open here.
        os.mkdir(job, 0o700)
    for name in NAMES:
        os.makedirs(os.path.join(job, name), exist_ok=True)
    work, partial = os.path.join(job, "work"), os.path.join(job, PARTIAL)
    if os.path.isdir(work):
        return
    shutil.rmtree(partial, ignore_errors=True)
    if has_work:
        shutil.copytree(".", partial, symlinks=True)
    else:
        os.mkdir(partial)
    os.rename(partial, work)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
