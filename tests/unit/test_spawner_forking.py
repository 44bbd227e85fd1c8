"""Which sessions can be forked, and what the process they are forked from is given."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from nimbus_spawner.local import NimbusLocalSpawner

from nimbus_hub.errors import InvalidRequest

_PYTHON = str(Path(sys.executable).parent / "python")


def test_sessions_of_the_default_command_can_be_forked() -> None:
    spawner = NimbusLocalSpawner(environment_bins={"torch": "/opt/torch/bin"})
    assert spawner._warm_python() == _PYTHON
    # Asking for it has settled nothing: the environment is known only with the lease.
    assert not spawner.trait_has_value("cmd")


@pytest.mark.parametrize(
    "settings",
    [
        {"warm": False},
        {"cmd": ["jupyterhub-singleuser"]},
        {"cmd": [_PYTHON, "-m", "nimbus_spawner.singleuser", "--debug"]},
        {"shell_cmd": ["bash", "-l", "-c"]},
    ],
)
def test_others_are_started(settings: dict[str, Any]) -> None:
    assert NimbusLocalSpawner(**settings)._warm_python() == ""


def test_the_process_they_are_forked_from_is_given_what_is_the_same_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEPT", "by the hub")
    monkeypatch.setenv("HUB_SECRET", "secret")
    spawner = NimbusLocalSpawner(
        env_keep=["KEPT", "PATH"],
        environment={"LC_ALL": "C.UTF-8", "TOKEN": "secret", "LC_TIME": lambda spawner: "C"},
    )
    assert spawner._warm_env("/opt/torch/bin/python") == {
        "KEPT": "by the hub",
        "LC_ALL": "C.UTF-8",
        "HOME": "/nonexistent",
        "PATH": f"/opt/torch/bin{os.pathsep}{os.defpath}",
    }


@pytest.mark.parametrize("settings", [{"warm_time": "long"}, {"warm_memory": "much"}])
def test_a_setting_that_is_no_quantity_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"'long'|'much'"):
        NimbusLocalSpawner(**settings)
