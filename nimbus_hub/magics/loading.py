"""Results as objects: each kind of file by its framework's own loader, imported when needed.

A loader runs in the notebook, so the framework must be installed there. Formats that are
nothing but pickle can run any code when they are loaded, and are refused unless asked for.
"""

from __future__ import annotations

import csv
import importlib
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nimbus_hub.errors import InvalidRequest

__all__ = ["is_split", "load"]

Loader = Callable[[Path], Any]

_SAVED_MODEL = "saved_model.pb"
_LIGHTGBM = b"tree"
_XGBOOST = re.compile(rb'\s*{\s*"(learner|Config)"')
_HEAD_BYTES = 100
_LEGACY_KERAS = "2."


def load(path: Path, *, allow_pickle: bool = False) -> Any:
    """Return what is in a file, or in a directory that is a SavedModel, by its kind.

    Raises InvalidRequest that names the package that is missing, or the kinds there are.
    """
    if path.is_dir():
        if not (path / _SAVED_MODEL).is_file():
            raise InvalidRequest(
                f"{path.name} is a directory and no SavedModel; job.download({path.name!r}) "
                "copies it, and job.load() takes the files in it"
            )
        return _package("tensorflow", path).saved_model.load(str(path))
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        if not allow_pickle:
            raise InvalidRequest(
                f"{path.name} is a pickle, which can run any code when it is loaded: if you "
                "trust who wrote it, say job.load(..., allow_pickle=True)"
            )
        return _PICKLES[suffix](path)
    if suffix in _ARRAYS:
        found = _package("numpy", path).load(path, allow_pickle=allow_pickle)
        # An archive would read the file only when it is asked for its arrays.
        return dict(found) if suffix == ".npz" else found
    if suffix in _TORCH:
        return _torch(path, allow_pickle)
    if suffix not in _LOADERS:
        known = ", ".join((*_TORCH, *_LOADERS, *_ARRAYS, *_PICKLES))
        raise InvalidRequest(
            f"nobody knows how to load {path.name}; there are {known} and SavedModel "
            f"directories. job.download({path.name!r}) copies it here"
        )
    return _LOADERS[suffix](path)


def is_split(path: str) -> bool:
    """Tell whether a file may need others, named as it and more: gensim puts arrays there."""
    return Path(path).suffix.lower() in _GENSIM


def _package(name: str, path: Path) -> Any:
    """Import what loads a file; raise InvalidRequest if it is not installed here."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        raise InvalidRequest(
            f"{path.name} is loaded by {name}, and this notebook's environment has no {missing}: "
            f"install it (%pip install {missing}), or copy the file with job.download()"
        ) from error


def _torch(path: Path, allow_pickle: bool) -> Any:
    torch = _package("torch", path)
    try:
        return torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError:
        if allow_pickle:
            raise
        raise InvalidRequest(
            f"{path.name} holds more than weights, like a whole model, and that can run any code "
            "when it is loaded: have the job save model.state_dict(), or if you trust who wrote "
            "it, say job.load(..., allow_pickle=True)"
        ) from None


def _booster(path: Path) -> Any:
    booster = _package("xgboost", path).Booster()
    booster.load_model(path)
    return booster


def _json(path: Path) -> Any:
    """Return an XGBoost model, or what else the JSON says."""
    with path.open("rb") as file:
        is_model = _XGBOOST.match(file.read(_HEAD_BYTES))
    return _booster(path) if is_model else json.loads(path.read_bytes())


def _lightgbm(path: Path) -> Any:
    return _package("lightgbm", path).Booster(model_file=str(path))


def _text(path: Path) -> Any:
    """Return a LightGBM model, or any other text as it is."""
    with path.open("rb") as file:
        is_model = file.readline().strip() == _LIGHTGBM
    return _lightgbm(path) if is_model else path.read_text(errors="replace")


def _keras(path: Path) -> Any:
    return _package(_keras_package(path), path).models.load_model(path)


def _keras_package(path: Path) -> str:
    """Return which Keras wrote a model: the two cannot read each other's files."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json")).get("keras_version", "")
    else:
        with _package("h5py", path).File(path) as file:
            if "model_config" not in file.attrs:
                raise InvalidRequest(
                    f"{path.name} has weights without their model: make the model, copy the file "
                    "with job.download() and call model.load_weights()"
                )
            version = file.attrs.get("keras_version", "")
    return "tf_keras" if str(version).startswith(_LEGACY_KERAS) else "keras"


def _gensim(path: Path) -> Any:
    found = _package("gensim.utils", path).SaveLoad.load(str(path))
    # What class it is the file tells; some have more files of their own, which that knows.
    return type(found).load(str(path))


def _csv(path: Path) -> Any:
    """Return a DataFrame, or a list of dicts where pandas is not installed."""
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    return pandas.read_csv(path)


def _pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)


def _joblib(path: Path) -> Any:
    return _package("joblib", path).load(path)


_TORCH = (".pt", ".pth")
_ARRAYS = (".npy", ".npz")
_GENSIM = (".lda", ".lsi", ".model")
_LOADERS: dict[str, Loader] = {
    ".json": _json,
    ".ubj": _booster,
    ".txt": _text,
    ".lgb": _lightgbm,
    ".keras": _keras,
    ".h5": _keras,
    **dict.fromkeys(_GENSIM, _gensim),
    ".csv": _csv,
}
_PICKLES: dict[str, Loader] = {".pkl": _pickle, ".pickle": _pickle, ".joblib": _joblib}
