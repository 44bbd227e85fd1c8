"""The environments of the frameworks: a virtual environment each, made once and kept.

They are below ``.venv/frameworks``, or where NIMBUS_FRAMEWORKS says; one whose requirements
changed is made anew. ``python -m tests.frameworks.environments [NAME ...]`` makes them ahead
and says how long each took.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["REQUIREMENTS", "directory", "programs"]

_TENSORBOARD = ("tensorboard>=2.21,<3",)
REQUIREMENTS: dict[str, tuple[tuple[str, ...], ...]] = {
    # Without dependencies: those of tf-keras are the whole tensorflow, GPU kernels and all.
    "tensorflow": (
        ("tensorflow-cpu==2.21.*", "scikit-learn>=1.6,<2", *_TENSORBOARD),
        ("--no-deps", "tf-keras==2.21.*"),
    ),
    "xgboost": (("xgboost-cpu==3.2.*", "scikit-learn>=1.6,<2", "tensorboardX>=2.6,<3"),),
    "lightgbm": (("lightgbm==4.7.*", "scikit-learn>=1.6,<2", "tensorboardX>=2.6,<3"),),
    "gensim": (("gensim==4.4.*", "Pyro4==4.82"),),
    # Not built in: the framework of the tutorial's plug-in.
    "jax": (("jax>=0.10,<0.11",),),
    "mpi": (("mpich==5.0.*", "mpi4py==4.1.*", "numpy>=2,<3"),),
}
"""What pip installs, in turn, by name of the environment."""

_TOP = Path(__file__).parents[2]


def directory() -> Path:
    """Return where what is made once for the frameworks is kept."""
    return Path(os.environ.get("NIMBUS_FRAMEWORKS", _TOP / ".venv" / "frameworks"))


def programs(name: str) -> Path:
    """Return the directory of an environment's programs; make the environment if need be."""
    top = directory()
    top.mkdir(parents=True, exist_ok=True)
    with (top / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = top / name
        stamp, wanted = made / "requirements", repr(REQUIREMENTS[name])
        if not stamp.is_file() or stamp.read_text() != wanted:
            _make(name, made)
            stamp.write_text(wanted)
    return made / "bin"


def _make(name: str, made: Path) -> None:
    began = time.monotonic()
    shutil.rmtree(made, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", made], check=True)
    pip = [made / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    for words in REQUIREMENTS[name]:
        subprocess.run([*pip, *words], check=True)
    print(f"environment {name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    for each in sys.argv[1:] or REQUIREMENTS:
        programs(each)
