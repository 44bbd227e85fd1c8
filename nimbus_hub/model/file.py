"""Files that jobs have written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["FileList", "FilePart", "JobFile"]


@dataclass(frozen=True, slots=True)
class JobFile:
    """A file of a job, by its path from the job's directory: ``output/model.pt``.

    ``version`` is another text whenever the file has changed.
    """

    path: str
    size_bytes: int
    changed_at: datetime
    version: str


@dataclass(frozen=True, slots=True)
class FileList:
    """Files in order of their paths; ``is_whole`` says that there are no more."""

    files: tuple[JobFile, ...]
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class FilePart:
    """Bytes of a file from some offset, and the file as it was then."""

    file: JobFile
    data: bytes
