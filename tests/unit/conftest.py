"""Unit tests reach no network; what they need of the service is a transport in memory."""

from __future__ import annotations

import pytest
from pytest_socket import disable_socket


def pytest_runtest_setup(item: pytest.Item) -> None:
    # Event loops wake themselves up through a pair of Unix sockets.
    disable_socket(allow_unix_socket=True)
