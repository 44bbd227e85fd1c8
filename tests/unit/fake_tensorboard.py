"""A stand-in for TensorBoard's process: a real one, for that it ends with the pipe is the point."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVE = """
import json, sys
options = json.loads(sys.stdin.readline())
prefix = options[options.index("--path_prefix") + 1]
print(f"http://127.0.0.1:4321{prefix}/", flush=True)
sys.stdin.read()
"""
SERVE_AND_END = SERVE.replace("sys.stdin.read()", "")


def start_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> list[subprocess.Popen[bytes]]:
    """Start a program instead of TensorBoard; return what is started, as it is."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(argv: list[str], **settings: object) -> subprocess.Popen[bytes]:
        assert argv == [sys.executable, "-P", "-m", "nimbus_hub.client.tensorboard_server"]
        assert settings["start_new_session"]
        process: subprocess.Popen[bytes] = popen(  # type: ignore[call-overload]
            [sys.executable, "-c", program], **settings
        )
        started.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", start)
    return started
