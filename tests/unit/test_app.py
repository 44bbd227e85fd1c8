"""The service as an application: what its settings come to."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from pathlib import Path

import pytest
from jupyterhub.services.auth import HubOAuth
from traitlets import TraitError

from nimbus_hub.app import NimbusHub
from nimbus_hub.control.settings import Settings, Size, read_sizes, read_warnings
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.policy import LeasePolicy
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.service_log import OneLine

BIG = {"name": "big", "cpus": "2.5", "memory": "1.5G", "gpus": 2}


@pytest.mark.parametrize(("is_trusted", "seconds"), [(True, 60), (False, 1)])
def test_no_answer_about_a_token_is_kept_for_ever(
    monkeypatch: pytest.MonkeyPatch, is_trusted: bool, seconds: int
) -> None:
    app = NimbusHub(trust_token_cache=is_trusted)
    cache = HubOAuth(
        api_token="t", oauth_client_id="c", cache_max_age=app.token_cache_seconds
    ).cache
    cache["token"] = {"name": "ada"}
    assert "token" in cache
    later = time.monotonic() + seconds + 0.1
    monkeypatch.setattr("jupyterhub.services.auth.time.monotonic", lambda: later)
    assert "token" not in cache


def test_a_reason_cannot_forge_a_line_of_the_log() -> None:
    reason = "gone\n2026-01-01 INFO lease l-1 granted\x1b[2J"
    record = logging.LogRecord(
        "nimbus", logging.INFO, "", 0, "job %s stopping: %s", ("j", reason), None
    )
    line = OneLine("%(levelname)s %(message)s").format(record)
    assert line == "INFO job j stopping: gone 2026-01-01 INFO lease l-1 granted"


def settings_of(state: Path, config: str) -> Settings:
    """Return what a configuration file comes to."""
    file = state / "config.py"
    file.write_text(config)
    app = NimbusHub()
    app.initialize([f"--state={state}", f"--config={file}"])
    control = app.control(HubStandIn())
    control.close()
    return control.settings


class HubStandIn:
    """A hub without servers."""

    async def stop(self, owner: str, name: str) -> bool:
        return True

    async def running(self) -> frozenset[tuple[str, str]]:
        return frozenset()


def test_sizes_and_warnings_have_the_defaults_of_the_control_layer(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "")
    assert settings.sizes == Settings("", b"").sizes
    assert [size.name for size in settings.sizes] == ["small", "medium", "large", "1 GPU"]
    assert settings.policies[LeaseKind.SESSION] == LeasePolicy()


def test_sizes_and_warnings_are_read_from_the_file(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path, f"c.NimbusHub.sizes = [{BIG}]\nc.NimbusHub.warnings = ['30s', '1h', '5m', 300]"
    )
    slot = SlotGroup("notebook", 1, 2500, 3 * 2**29, 2)
    assert settings.sizes == (Size("big", slot),)
    warnings = {kind: policy.warnings for kind, policy in settings.policies.items()}
    assert warnings == {
        LeaseKind.SESSION: (timedelta(hours=1), timedelta(minutes=5), timedelta(seconds=30)),
        LeaseKind.JOB: (timedelta(minutes=15),),
        LeaseKind.DEBUG: (timedelta(minutes=10), timedelta(minutes=2)),
    }


def test_a_size_needs_no_gpus_and_a_session_no_warnings() -> None:
    (size,) = read_sizes([{"name": " tiny ", "cpus": 1, "memory": "1G"}])
    assert (size.name, size.slot.gpus) == ("tiny", 0)
    assert read_warnings([]) == ()


_HAS = "a size must have name, cpus, memory, gpus"


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("sizes", [], "there must be at least one size, got []"),
        ("sizes", ["big"], f"{_HAS}, got 'big'"),
        ("sizes", [{"name": "big"}], f"{_HAS} and no more, got {{'name': 'big'}}"),
        ("sizes", [BIG | {"gpu": 1}], f"{_HAS} and no more, got {BIG | {'gpu': 1}}"),
        ("sizes", [BIG, BIG], "there must be one size of a name, got 'big' twice or more"),
        (
            "sizes",
            [BIG | {"name": "custom"}],
            "a size's name must be a text other than 'custom', got 'custom'",
        ),
        ("sizes", [BIG | {"name": 4}], "a size's name must be a text other than 'custom', got 4"),
        (
            "sizes",
            [BIG | {"memory": "lots"}],
            "size 'big': memory must be a size like 4G or 512M, got 'lots'",
        ),
        ("sizes", [BIG | {"cpus": 0}], "size 'big': cpus must be more than 0, got '0'"),
        (
            "sizes",
            [BIG | {"gpus": "A100:1"}],
            "size 'big': gpus must be a whole number, got 'A100:1'",
        ),
        ("warnings", ["5m", "soon"], "duration must be like 90m, 2h or 1d, got 'soon'"),
        (
            "warnings",
            ["0s"],
            "duration must be more than 0 and at most 3650d, got '0s'",
        ),
        ("renewal", "soon", "duration must be like 90m, 2h or 1d, got 'soon'"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name_and_value(
    setting: str, value: object, sentence: str
) -> None:
    with pytest.raises(TraitError) as refused:
        NimbusHub(**{setting: value})
    assert str(refused.value) == f"NimbusHub.{setting}: {sentence}"


def test_a_wrong_setting_in_the_file_ends_the_start_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.py"
    file.write_text("c.NimbusHub.warnings = ['soon']")
    with pytest.raises(SystemExit):
        NimbusHub().initialize([f"--config={file}"])
    assert "NimbusHub.warnings: duration must be like 90m, 2h or 1d, got 'soon'" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("notifiers", "sentence"),
    [
        ({"pigeon": {}}, "NimbusHub.notifiers: pigeon: there is no such notifier; installed are"),
        ({"webhook": {}}, "NimbusHub.notifiers: webhook: give url, or url_file where the address"),
    ],
)
def test_a_wrong_notifier_is_refused_at_the_start(
    notifiers: dict[str, object], sentence: str
) -> None:
    with pytest.raises(TraitError) as refused:
        NimbusHub(notifiers=notifiers)
    assert str(refused.value).startswith(sentence)
