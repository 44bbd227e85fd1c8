"""Makes a job's directories in its owner's home, under the owner's account.

Called by a service that runs as root, with the working directory set to a staging directory
of the account's, as ``python -I -S directories.py UID GID GROUPS HOME JOB_ID [work]``, or with
``workspace NAME`` in place of ``work``. Everything below the home is done after the rights of
root are given up, so links that the owner has put there lead nowhere they could not go
themselves. Prints one sentence to standard error if it fails.

``work``: the staging directory is the snapshot. A *workspace* is a working directory that
jobs share and that is brought up to date for each: standard input is a line with the files
it is to have, the answer a line with the paths of those that are needed, and another line
says that these are in the staging directory.

Python 3.6 and later, standard library only.
"""

# ruff: noqa: PTH102, PTH103, PTH104, PTH105, PTH106, PTH108, PTH112, PTH116
# ruff: noqa: PTH114, PTH118, PTH120, PTH123, PTH211

import json
import os
import shutil
import stat
import sys

__all__ = ["NAMES", "PARTIAL", "make", "update"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

    File = Tuple[str, str, bool]
    Fetch = Callable[[List[str], str], None]
    # Digest, whether it is executable, size and mtime_ns as it was left.
    Index = Dict[str, List[Any]]

NAMES = ("output", "logs", "checkpoints")
PARTIAL = ".work.partial"
INDEX = ".work.json"
"""What was put into a workspace, and how each file was left."""


def main(arguments: "list[str]") -> int:
    """Become the account, make the directories, copy the working directory."""
    uid, gid, groups, home, job_id = arguments[1:6]
    os.setgroups([int(group) for group in groups.split(",") if group])
    os.setgid(int(gid))
    os.setuid(int(uid))
    os.umask(0o022)
    job = os.path.join(home, "nimbus", job_id)
    try:
        if arguments[6:7] == ["workspace"]:
            workspace = arguments[7]
            files = json.loads(sys.stdin.readline())
            update(os.path.join(home, "nimbus", workspace), files, ask)
            make(job, None, workspace)
        else:
            make(job, copy if arguments[6:] == ["work"] else None)
    except (OSError, shutil.Error) as error:
        sys.stderr.write("%s\n" % error)
        return 1
    return 0


def copy(target: str) -> None:
    """Copy the staging directory."""
    shutil.copytree(".", target, symlinks=True)


def ask(paths: "List[str]", target: str) -> None:
    """Have files staged and copy them."""
    sys.stdout.write(json.dumps(paths) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()
    copy(target)


def make(job: str, fill: "Optional[Callable[[str], None]]", workspace: str = "") -> None:
    """Make what is missing; the working directory appears at once and whole."""
    make_private(job)
    for name in NAMES:
        os.makedirs(os.path.join(job, name), exist_ok=True)
    work, partial = os.path.join(job, "work"), os.path.join(job, PARTIAL)
    if os.path.isdir(work):
        return
    if workspace:
        os.symlink(os.path.join("..", workspace, "work"), work)
        return
    shutil.rmtree(partial, ignore_errors=True)
    if fill is None:
        os.mkdir(partial)
    else:
        fill(partial)
    os.rename(partial, work)


def make_private(folder: str) -> None:
    """Make a directory that only its owner may enter."""
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    if not os.path.isdir(folder):
        # Copies have plain modes: what was private in a home must not be open here.
        os.mkdir(folder, 0o700)


def update(folder: str, files: "Optional[Sequence[File]]", fetch: "Fetch") -> None:
    """Bring a workspace up to date: (path, digest, whether it is executable) for each file.

    ``fetch`` is called with paths and a directory to make, where it puts their contents. A
    file that is as it was left and has the content it is to have is not touched; others are
    replaced whole. What left the snapshot is removed if it is as it was left; what else is
    there stays. None for the files: all is right as it is.
    """
    make_private(folder)
    work = os.path.join(folder, "work")
    os.makedirs(work, exist_ok=True)
    if files is None:
        return
    known = read_index(folder)
    remove_left(work, known, {path for path, _, _ in files})
    for parent in sorted({os.path.dirname(path) for path, _, _ in files}):
        make_plain(work, parent)
    index = {}  # type: Index
    needed = {}  # type: Dict[str, Tuple[str, bool]]
    for path, digest, is_executable in files:
        entry = known.get(path)
        is_right = entry is not None and entry[:2] == [digest, is_executable]
        if entry is not None and is_right and is_as_left(os.path.join(work, path), entry):
            index[path] = entry
        else:
            needed[path] = digest, is_executable
    if needed:
        partial = os.path.join(folder, PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        fetch(list(needed), partial)
        for path, (digest, is_executable) in needed.items():
            target = os.path.join(work, path)
            replace(os.path.join(partial, path), target, known.get(path))
            status = os.lstat(target)
            index[path] = [digest, is_executable, status.st_size, status.st_mtime_ns]
        shutil.rmtree(partial)
    if index != known:
        write_index(folder, index)


def remove_left(work: str, known: "Index", wanted: "set[str]") -> None:
    """Remove files that nobody wants or has changed, and directories that this empties."""
    for path, entry in known.items():
        if path in wanted or not is_as_left(os.path.join(work, path), entry):
            continue
        os.unlink(os.path.join(work, path))
        parent = os.path.dirname(path)
        while parent:
            try:
                os.rmdir(os.path.join(work, parent))
            except OSError:
                break
            parent = os.path.dirname(parent)


def make_plain(work: str, path: str) -> None:
    """Make a directory; a file or link that has its name, or a parent's, makes way."""
    folder = work
    for name in path.split("/") if path else ():
        folder = os.path.join(folder, name)
        try:
            is_plain = stat.S_ISDIR(os.lstat(folder).st_mode)
        except FileNotFoundError:
            os.mkdir(folder)
            continue
        if not is_plain:
            os.unlink(folder)
            os.mkdir(folder)


def is_as_left(path: str, entry: "List[Any]") -> bool:
    """Tell whether nobody has changed a file since it was put there."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(status.st_mode) and [status.st_size, status.st_mtime_ns] == entry[2:]


def replace(source: str, target: str, entry: "Optional[List[Any]]") -> None:
    """Put a file in its place.

    Python takes a compiled module for current if its source has the same size and the same
    second as before, so an edited file must be of another second than the last one.
    """
    status = os.stat(source)
    second = 10**9
    if entry is not None and status.st_mtime_ns // second <= entry[3] // second:
        later = (entry[3] // second + 1) * second
        os.utime(source, ns=(later, later))
    if os.path.isdir(target) and not os.path.islink(target):
        # What runs have put into it is theirs.
        aside = target + ".left"
        while os.path.lexists(aside):
            aside += "~"
        os.rename(target, aside)
    os.replace(source, target)


def read_index(folder: str) -> "Index":
    """Return what was put into a workspace; nothing if that is not known."""
    try:
        with open(os.path.join(folder, INDEX), encoding="utf-8") as file:
            found = json.load(file)  # type: Index
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_index(folder: str, index: "Index") -> None:
    """Remember what was put into a workspace."""
    partial = os.path.join(folder, INDEX + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        # Not dump, which would write each word by itself.
        file.write(json.dumps(index))
    os.replace(partial, os.path.join(folder, INDEX))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
