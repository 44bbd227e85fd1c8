"""The ``Job`` that ``%nimbus_run`` returns."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from nimbus_hub.client import Client, resources
from nimbus_hub.client.files import job_path
from nimbus_hub.clock import SystemClock
from nimbus_hub.errors import NotFound
from nimbus_hub.magics.files import Files
from nimbus_hub.magics.loading import is_split, load
from nimbus_hub.magics.render import headline
from nimbus_hub.magics.screen import has_widgets, show
from nimbus_hub.magics.tails import Tails
from nimbus_hub.magics.view import View, static_bundle
from nimbus_hub.model.quantities import format_duration

__all__ = ["Job"]

_POLL_SECONDS = 20.0
_NAMED = 10
_CLOCK = SystemClock()


class Job:
    """A job of yours: ask it, wait for it, read its logs, stop it; show it to watch it live."""

    def __init__(self, client: Client, job: resources.Job, *, is_live: bool = True) -> None:
        """Wrap what the service said; ``is_live``: shown as widgets while it runs."""
        self._client = client
        self._job = job
        self._is_live = is_live
        self._view: View | None = None

    @property
    def known(self) -> resources.Job:
        """Return what was last heard of the job, without asking."""
        return self._job

    @property
    def id(self) -> str:
        """Return the job's id."""
        return self._job.id

    @property
    def name(self) -> str:
        """Return the job's name."""
        return self._job.name

    @property
    def state(self) -> str:
        """Return the state now: queued, starting, running, succeeded, failed or stopped."""
        return self._now().state

    @property
    def reason(self) -> str:
        """Return why the job is in its state, as a sentence."""
        return self._now().reason

    @property
    def progress(self) -> float | None:
        """Return how far the job is, from 0 to 1, if it tells."""
        return self._now().progress

    @property
    def replicas(self) -> tuple[resources.Replica, ...]:
        """Return the processes of the newest attempt."""
        return self._now().replicas

    @property
    def is_ended(self) -> bool:
        """Tell whether the job is over."""
        return self._now().is_ended

    @property
    def output_dir(self) -> Path | None:
        """Return the directory of the job's results; None before the start."""
        found = self._now().output_dir
        return Path(found) if found else None

    @property
    def log_dir(self) -> Path | None:
        """Return the directory TensorBoard reads; None before the start."""
        found = self._now().log_dir
        return Path(found) if found else None

    def refresh(self) -> Job:
        """Ask the service how the job is; return the job itself."""
        self._job = self._client.job(self._job.id)
        return self

    def wait(self, timeout: float | None = None) -> Job:
        """Wait until the job ends, at most ``timeout`` seconds; return the job itself.

        Raises TimeoutError. Interrupting the wait leaves the job alone.
        """
        end = None if timeout is None else _CLOCK.now() + timedelta(seconds=timeout)
        while not self._job.is_ended:
            left = _POLL_SECONDS if end is None else (end - _CLOCK.now()).total_seconds()
            if left <= 0:
                limit = format_duration(timedelta(seconds=timeout or 0))
                raise TimeoutError(f"{headline(self._job)} It did not end within {limit}.")
            step = min(left, _POLL_SECONDS)
            self._job = self._client.job(self.id, after=self._job.version, timeout=step)
        return self

    def logs(self, replica: str | None = None, tail: int | None = None) -> str:
        """Return the output of a replica, or of all, each under its name; ``tail``: last lines."""
        texts: dict[str, str] = {}
        for item in self._client.whole_logs(self.id, replica=replica, tail=tail):
            texts[item.replica] = texts.get(item.replica, "") + item.text
        if len(texts) < 2:
            return "".join(texts.values())
        return "\n".join(f"--- {name}\n{text}" for name, text in texts.items())

    @property
    def files(self) -> Files:
        """Return what the job has written below its output, logs and checkpoints."""
        return Files(self._client.files(self.id))

    def download(self, path: str, target: Path | str = ".", replica: str | None = None) -> Path:
        """Copy a file or directory of the job here, as ``cp -r`` would; return where it is.

        A path like ``model.pt`` is in output, and others are as ``job.files`` has them.
        """
        with self._explained():
            return self._client.download(self.id, path, target, replica=replica)

    def load(self, path: str, *, allow_pickle: bool = False, replica: str | None = None) -> Any:
        """Return what a file of the job holds, loaded by what it was written with.

        The kind is told by the name: .pt and .pth (the weights), .json, .ubj, .txt, .lgb,
        .keras, .h5, .npy, .npz, .lda, .lsi, .model, .csv, or a SavedModel directory; pickles
        and whole PyTorch models only with ``allow_pickle``. Raises InvalidRequest, with what to
        do, for another one and for a framework that this notebook does not have; NotFound says
        what the job has written.
        """
        wanted = job_path(path)
        with tempfile.TemporaryDirectory() as place:
            with self._explained():
                for each in (wanted, *self._beside(wanted, replica)):
                    self._client.download(self.id, each, place, replica=replica)
            return load(Path(place, Path(wanted).name), allow_pickle=allow_pickle)

    def stop(self, reason: str = "") -> Job:
        """Stop the job; it ends soon after. Return the job itself."""
        self._job = self._client.stop(self.id, reason=reason)
        return self

    def view(self) -> None:
        """Show the job as widgets while it runs, else as it ended."""
        self._job = self._now()
        if self._job.is_ended or not has_widgets():
            show(self._repr_mimebundle_())
            return
        if self._view is None or self._view.watch.is_over:
            self._view = View(self._client, self._job)
        self._view.show()

    def _now(self) -> resources.Job:
        """Return the newest state; what has ended stays as it is."""
        if not self._job.is_ended:
            self.refresh()
        return self._job

    def _beside(self, path: str, replica: str | None) -> list[str]:
        """Return the files that a file needs to be loaded."""
        if not is_split(path):
            return []
        folder = path.rpartition("/")[0]
        files = self._client.files(self.id, folder, replica).items
        return [file.path for file in files if file.path.startswith(f"{path}.")]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Tell who misses a file how the job is and what it has written."""
        try:
            yield
        except NotFound as error:
            paths = self.files.paths
            names = ", ".join(paths[:_NAMED]) + " ..." * (len(paths) > _NAMED)
            raise NotFound(
                f"{error.message}. {headline(self._now())} It has written {names or 'nothing yet'}"
            ) from None

    def _ipython_display_(self) -> None:
        if self._is_live:
            self.view()
        else:
            show(self._repr_mimebundle_())

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        job = self._now()
        tails = Tails()
        if self._is_live:
            for item in self._client.whole_logs(self.id, tail=tails.lines):
                tails.add(item)
        return static_bundle(job, tails)

    def __repr__(self) -> str:
        """Return one line as it was last known; asks nobody."""
        return f"<{headline(self._job).rstrip('.')}>"
