"""Unit tests reach no network; what they need of the service is a transport in memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from pytest_socket import disable_socket


def pytest_collection_finish() -> None:
    # What was imported and collected stays: to look through it for garbage takes seconds.
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    # Event loops wake themselves up through a pair of Unix sockets.
    disable_socket(allow_unix_socket=True)


@pytest.fixture(autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield
