"""A Docker engine for the tests that need one: the one that answers, or one of their own.

With CI=true, as root, `dockerd` is started where none answers, with its data beside the
environments of the frameworks: an image is built once and kept. Without CI nothing is started;
the tests say what they miss. ``python -m tests.frameworks.engine`` builds the images ahead.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.frameworks import environments

__all__ = ["Engine", "engine"]

_IMAGES = Path(__file__).parents[2] / "images"
_BASES = {
    "caffe2": ("bullseye", "debian:bullseye-slim"),
    "python": ("bookworm", "debian:bookworm-slim"),
}
"""The Debian release of each image's base, and its public name."""
_OURS: list[Engine] = []
"""The engine that was started here: who needs one while it runs shares it."""


@dataclass(frozen=True)
class Engine:
    """What answers at an address; an empty one is the client's own choice."""

    address: str = ""

    def docker(self, *words: str, seconds: float = 60) -> str:
        """Run a command of the client and return what it prints."""
        ran = subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, timeout=seconds
        )
        assert ran.returncode == 0, f"docker {' '.join(words)}: {ran.stderr}"
        return ran.stdout.strip()

    def command(self, *words: str) -> list[str]:
        """Return the whole command line of the client."""
        return ["docker", *(["--host", self.address] if self.address else []), *words]

    def answers(self) -> bool:
        """Tell whether somebody is there."""
        try:
            ran = subprocess.run(self.command("info"), capture_output=True, check=False, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return ran.returncode == 0

    def image(self, name: str) -> str:
        """Return the tag of an image of ours, which is built if need be, and say how long it took.

        The tag is of what the image is made from: another Dockerfile is another image.
        """
        release, public = _BASES[name]
        made_from = (_IMAGES / name / "Dockerfile").read_bytes()
        tag = f"nimbus-test/{name}:{hashlib.sha256(made_from).hexdigest()[:12]}"
        if not self.docker("images", "--quiet", tag):
            began = time.monotonic()
            base = self._base(release) if shutil.which("mmdebstrap") else public
            subprocess.run(
                self.command("build", "-q", "-t", tag, "--build-arg", f"BASE={base}", name),
                # The builder that needs no plug-in.
                env={**os.environ, "DOCKER_BUILDKIT": "0"},
                cwd=_IMAGES,
                check=True,
                timeout=600,
            )
            print(f"image {name}: {time.monotonic() - began:.0f} s", flush=True)
        return tag

    def _base(self, release: str) -> str:
        """Return a minimal Debian, made by hand: not everybody can pull."""
        tag = f"nimbus-test/{release}:base"
        if not self.docker("images", "--quiet", tag):
            words = ["--quiet", "--variant=minbase", "--include=ca-certificates", release, "-"]
            with subprocess.Popen(["mmdebstrap", *words], stdout=subprocess.PIPE) as made:
                subprocess.run(
                    self.command("import", "-", tag), stdin=made.stdout, check=True, timeout=300
                )
            assert made.returncode == 0, f"mmdebstrap exited with {made.returncode}"
        return tag


@contextmanager
def engine() -> Iterator[Engine]:
    """Give an engine that answers, for as long as it is needed."""
    if _OURS:
        yield _OURS[0]
        return
    found = Engine()
    if shutil.which("docker") and found.answers():
        yield found
        return
    missing = [name for name in ("docker", "dockerd", "mmdebstrap") if not shutil.which(name)]
    is_ci = os.environ.get("CI") == "true"
    if missing or not is_ci or os.getuid() != 0:
        lacks = f"{', '.join(missing)} (Debian: docker.io mmdebstrap)" if missing else "dockerd"
        said = f"no Docker engine answers; needed: {lacks}, started, or by root with CI=true"
        pytest.fail(said) if is_ci else pytest.skip(said)
    with tempfile.TemporaryDirectory(prefix="nimbus-docker-") as directory:
        yield from _own(Path(directory))


def _own(directory: Path) -> Iterator[Engine]:
    """Start an engine, and end it."""
    address = f"unix://{directory / 'socket'}"
    words = ["--data-root", str(environments.directory() / "docker")]
    words += ["--exec-root", str(directory / "run"), "--pidfile", str(directory / "pid")]
    log = directory / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(["dockerd", *words, "-H", address], stdout=file, stderr=file)
    try:
        made = Engine(address)
        end = time.monotonic() + 60
        while not made.answers():
            assert process.poll() is None, f"dockerd ended:\n{log.read_text()[-3000:]}"
            assert time.monotonic() < end, f"dockerd does not answer:\n{log.read_text()[-3000:]}"
            time.sleep(0.1)
        _OURS.append(made)
        yield made
    finally:
        _OURS.clear()
        # With a network go its rules of the firewall, which outlive an engine and would hide who
        # sends from the containers of the next.
        prune = made.command("network", "prune", "--force")
        subprocess.run(prune, check=False, capture_output=True, timeout=60)
        process.terminate()
        process.wait(30)
        # An engine leaves the host's own network mounted, where a container was in it.
        for path in (directory / "run" / "netns").glob("*"):
            subprocess.run(["umount", path], check=False, capture_output=True)


if __name__ == "__main__":
    try:
        with engine() as running:
            for each in sys.argv[1:] or _BASES:
                running.image(each)
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        sys.exit(str(error) if os.environ.get("CI") == "true" else print(error, file=sys.stderr))
