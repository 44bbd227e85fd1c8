"""The application masters there are: the built-in ones and those of other packages.

A plug-in that cannot be loaded breaks only the jobs that ask for it.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from nimbus_hub.errors import InvalidRequest, Unavailable
from nimbus_hub.masters.base import Master
from nimbus_hub.masters.caffe2 import Caffe2Master
from nimbus_hub.masters.gensim import GensimMaster
from nimbus_hub.masters.lightgbm import LightGBMMaster
from nimbus_hub.masters.mpi import MpiMaster
from nimbus_hub.masters.pytorch import PyTorchMaster
from nimbus_hub.masters.script import ScriptMaster
from nimbus_hub.masters.tensorflow import TensorFlowMaster
from nimbus_hub.masters.xgboost import XGBoostMaster

__all__ = ["GROUP", "detected", "master", "masters"]

GROUP = "nimbus_hub.masters"

_BUILT_IN: tuple[Master, ...] = (
    ScriptMaster(),
    # Horovod's scripts import the framework that it is for, too.
    MpiMaster(),
    PyTorchMaster(),
    # Scripts of PyTorch import it for its data and its event files.
    TensorFlowMaster(),
    XGBoostMaster(),
    LightGBMMaster(),
    GensimMaster(),
    Caffe2Master(),
)
"""In the order in which the one for a script that imports several is chosen."""


def detected(imports: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Return the frameworks of what a script imports, best first, each with what is its own."""
    return tuple(
        (name, next(module for module in each.imports if module in imports))
        for name, each in masters().items()
        if not set(each.imports).isdisjoint(imports)
    )


def masters() -> dict[str, Master]:
    """Return all masters that can be loaded, by name; the built-in ones are always there."""
    found = {each.name: each for each in _BUILT_IN}
    for name in _plug_ins():
        try:
            found[name] = _loaded(name)
        except Unavailable:
            continue
    return found


def master(name: str) -> Master:
    """Return the master of a framework.

    Raises InvalidRequest naming the known ones, and Unavailable naming a broken plug-in.
    """
    for each in _BUILT_IN:
        if each.name == name:
            return each
    plug_ins = _plug_ins()
    if name in plug_ins:
        return _loaded(name)
    known = sorted({*(each.name for each in _BUILT_IN), *plug_ins})
    close = get_close_matches(name.lower(), known, n=1)
    hint = f", did you mean {close[0]}?" if close else "."
    raise InvalidRequest(f"there is no framework {name!r}{hint} There are {', '.join(known)}")


def _plug_ins() -> dict[str, EntryPoint]:
    """Return the masters that other packages bring; they do not replace built-in ones."""
    own = {each.name for each in _BUILT_IN}
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in own}


@cache
def _loaded(name: str) -> Master:
    point = _plug_ins()[name]
    try:
        made = point.load()()
        if not isinstance(made, Master):
            raise TypeError(f"it made no nimbus_hub.masters.base.Master but {made!r}")
    # A plug-in may fail in any way it likes.
    except Exception as error:
        raise Unavailable(
            f"framework {name!r} cannot be used: its plug-in {point.value} failed with "
            f"{type(error).__name__}: {error}"
        ) from error
    return made
