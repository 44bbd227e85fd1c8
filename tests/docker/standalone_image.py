"""An image whose sessions need no mounts: this project as it is installed here, on plain Python.

Two layers: the interpreter with the packages that Nimbus Hub needs, made once for their versions,
and this project's own files. Nothing of it comes over the network. Its user is `jovyan`.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.frameworks.engine import Engine

__all__ = ["standalone_image"]

_ROOT = Path(__file__).parents[2]
_SOURCES = ("nimbus_hub", "spawner/nimbus_spawner", "labextension/nimbus_labextension")
_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "config"}
_LOWER = """\
FROM {base}
ADD root.tar /
RUN useradd --create-home --uid 1000 jovyan && chmod a+x {parents}
USER jovyan
WORKDIR /home/jovyan
ENV PATH={bin}:$PATH
CMD ["{bin}/python3", "-m", "nimbus_spawner.singleuser"]
"""
_UPPER = "FROM {base}\nADD root.tar /\n"


def standalone_image(engine: Engine) -> str:
    """Return the tag of the image, which is made if need be."""
    found = _closure("nimbus-hub")
    versions = "\n".join(sorted(f"{name}=={each.version}" for name, each in found.items()))
    lower = f"nimbus-test/packages:{_digest(versions, sys.version, _LOWER, str(_ROOT))}"
    values = {
        "base": engine.image("python"),
        "bin": f"{sys.prefix}/bin",
        # Where people's homes are closed, others could not run what is in one.
        "parents": " ".join(map(str, (*_parents(sys.base_prefix), *_parents(sys.prefix)))),
    }
    if not engine.docker("images", "--quiet", lower):
        _build(engine, lower, _LOWER.format(**values), [*_interpreter(), *_packages(found)])
    sources = [path for top in _SOURCES for path in _files(_ROOT / top)]
    own = [path for path in sources if path.suffix != ".pyc"]
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in own]
    upper = f"nimbus-test/standalone:{_digest(lower, *map(str, own), *contents)}"
    if not engine.docker("images", "--quiet", upper):
        _build(engine, upper, _UPPER.format(base=lower), sources)
    return upper


def _closure(name: str) -> dict[str, Distribution]:
    """Return what a distribution needs to run, and what that needs."""
    found: dict[str, Distribution] = {}
    rest, seen = [Requirement(name)], set[str]()
    while rest:
        need = rest.pop()
        for extra in ("", *need.extras):
            if f"{need.name}[{extra}]" in seen:
                continue
            seen.add(f"{need.name}[{extra}]")
            try:
                own = found.setdefault(need.name.lower(), distribution(need.name))
            except PackageNotFoundError:
                continue  # For another platform.
            needs = map(Requirement, own.requires or ())
            rest += [
                each for each in needs if not each.marker or each.marker.evaluate({"extra": extra})
            ]
    return found


def _packages(found: dict[str, Distribution]) -> Iterator[Path]:
    for each in found.values():
        for file in each.files or ():
            path = Path(str(file.locate())).resolve()
            if path.is_relative_to(sys.prefix) and path.is_file():
                yield path
    yield from _files(Path(sys.prefix, "share", "jupyter", "labextensions"))
    yield Path(sys.prefix, "pyvenv.cfg")


def _interpreter() -> Iterator[Path]:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    yield from base.glob("lib/libpython*")
    yield base / "bin" / version
    yield from base.glob("bin/python3")
    yield from Path(sys.prefix).glob("bin/python*")
    yield from _files(base / "lib" / version)


def _files(top: Path) -> Iterator[Path]:
    for path in sorted(top.iterdir()):
        if path.name in _LEFT_OUT or path.name.startswith("config-"):
            continue
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _build(engine: Engine, tag: str, dockerfile: str, paths: list[Path]) -> None:
    """Build an image with files at the paths that they have here."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        for path in dict.fromkeys(paths):
            archive.add(path, filter=_anyones)
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode="w") as archive:
        for name, content in (("Dockerfile", dockerfile.encode()), ("root.tar", inner.getvalue())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    command = engine.command("build", "-q", "-t", tag, "-")
    subprocess.run(command, input=outer.getvalue(), check=True, timeout=300, capture_output=True)


def _anyones(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.mode |= 0o444 | (0o111 if member.mode & 0o100 else 0)
    return member


def _parents(path: str) -> list[Path]:
    return [*Path(path).parents][:-1]


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
