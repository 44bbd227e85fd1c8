"""How far a pull is, and whose password is used for it."""

from __future__ import annotations

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.docker.images import (
    Credentials,
    Progress,
    auth_for,
    registry_of,
)


def downloading(layer: str, current: int, total: int) -> dict[str, object]:
    detail = {"current": current, "total": total}
    return {"id": layer, "status": "Downloading", "progressDetail": detail}


def test_a_pull_tells_bytes_of_all_layers_in_the_greatest_unit_that_fits() -> None:
    progress = Progress()
    assert str(progress) == "pulling"
    progress.note({"status": "Pulling from library/python", "id": "3"})
    progress.note({"id": "a", "status": "Pulling fs layer", "progressDetail": {}})
    progress.note(downloading("a", 100, 2000))
    assert str(progress) == "pulling 0.1/2.0 kB"
    progress.note(downloading("b", 1_200_000_000, 3_400_000_000))
    progress.note({"id": "a", "status": "Download complete", "progressDetail": {}})
    assert str(progress) == "pulling 1.2/3.4 GB"
    progress.note({"id": "b", "status": "Extracting", "progressDetail": {"current": 1, "total": 9}})
    progress.note({"id": "b", "status": "Pull complete", "progressDetail": {}})
    assert str(progress) == "pulling 3.4/3.4 GB"


def test_a_layer_that_is_there_already_counts_for_nothing() -> None:
    progress = Progress()
    progress.note({"id": "a", "status": "Already exists", "progressDetail": {}})
    assert str(progress) == "pulling"


def test_what_the_engine_says_went_wrong_is_raised() -> None:
    with pytest.raises(InvalidRequest, match=r"^unauthorized$"):
        Progress().note({"error": "unauthorized", "errorDetail": {"message": "unauthorized"}})


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("python", "docker.io"),
        ("nvcr.io/nvidia/pytorch:24.01", "nvcr.io"),
        ("registry.example.org:5000/a/b@sha256:0123", "registry.example.org:5000"),
    ],
)
def test_the_registry_of_an_image_is_in_its_name(reference: str, registry: str) -> None:
    assert registry_of(reference) == registry


def test_a_password_is_given_to_its_own_registry_alone() -> None:
    known = {"registry.example.org:5000": Credentials("hub", "secret")}
    given = {"username": "hub", "password": "secret"}
    assert auth_for("registry.example.org:5000/a:1", known) == given
    assert auth_for("registry.example.org/a:1", known) is None
    assert auth_for("a:1", known) is None


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Credentials("hub", "secret"))
