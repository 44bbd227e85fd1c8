"""What a job is run as: its framework, found by what it imports, and how long it may be silent."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from nimbus_hub.client import Client, GroupRequest, JobRequest
from nimbus_hub.errors import InvalidRequest
from tests.service.waiting import until

if TYPE_CHECKING:
    from tests.service.conftest import Service


@pytest.fixture
def ada(service: Service) -> Client:
    return service.client("ada-token")


def test_a_framework_is_taken_by_what_the_script_imports(ada: Client) -> None:
    request = JobRequest(("python", "train.py"), imports=("numpy", "xgboost", "torch"))
    plan = ada.plan(request)
    reason = "train.py imports torch; it imports xgboost, too: --framework xgboost"
    assert (plan.framework, plan.framework_reason) == ("pytorch", reason)
    job = ada.submit(request)
    assert (job.framework, job.framework_reason) == ("pytorch", reason)
    assert ada.job(job.id).framework_reason == reason


@pytest.mark.parametrize(
    ("imports", "framework", "reason"),
    [
        (
            ("torch", "horovod"),
            "mpi",
            "train.py imports horovod; it imports torch, too: --framework pytorch",
        ),
        (("mpi4py",), "mpi", "train.py imports mpi4py"),
        (("lightgbm", "pandas"), "lightgbm", "train.py imports lightgbm"),
        (("numpy",), "script", ""),
        ((), "script", ""),
    ],
)
def test_each_framework_is_known_by_its_modules(
    ada: Client, imports: tuple[str, ...], framework: str, reason: str
) -> None:
    plan = ada.plan(JobRequest(("python", "-u", "train.py"), imports=imports))
    assert (plan.framework, plan.framework_reason) == (framework, reason)


def test_who_names_a_framework_gets_it(ada: Client) -> None:
    request = JobRequest(("python", "train.py"), framework="script", imports=("torch",))
    assert (ada.plan(request).framework, ada.plan(request).framework_reason) == ("script", "")


def test_a_refusal_says_why_it_was_that_framework(ada: Client) -> None:
    groups = (GroupRequest(), GroupRequest("ps"))
    with pytest.raises(InvalidRequest) as caught:
        ada.plan(JobRequest(("python", "train.py"), imports=("torch",), groups=groups))
    assert caught.value.message.endswith(
        " (framework pytorch was chosen because train.py imports torch; choose another with "
        "--framework, like script)"
    )
    with pytest.raises(InvalidRequest) as caught:
        ada.plan(JobRequest(("python", "train.py"), framework="pytorch", groups=groups))
    assert "was chosen" not in caught.value.message


def test_a_job_may_say_how_long_it_may_be_silent(service: Service, ada: Client) -> None:
    submitted = ada.submit(JobRequest(("python", "train.py"), stall="10m"))
    until(lambda: ada.job(submitted.id), lambda seen: seen.state == "running")
    service.skip(timedelta(minutes=6))
    seen = until(lambda: ada.job(submitted.id), lambda seen: seen.note != "")
    assert seen.note.startswith("nothing was heard of it for 5m; it ends as stalled at ")
    service.skip(timedelta(minutes=5))
    seen = until(lambda: ada.job(submitted.id), lambda seen: seen.is_ended)
    assert (seen.state, seen.note) == ("failed", "")
    assert seen.reason.startswith("stalled: nothing was heard of it for 10m, ")


@pytest.mark.parametrize("stall", ["soon", "0", "-1m", "OFF "])
def test_a_stall_time_that_is_none_is_refused(ada: Client, service: Service, stall: str) -> None:
    sentence = f"stall must be a time like 10m or 'off', got {stall!r}"
    with pytest.raises(InvalidRequest, match="stall must be a time"):
        ada.submit(JobRequest(("x",), stall=stall))
    with service.raw("ada-token") as http:
        answer = http.post("/api/v1/jobs", json={"argv": ["x"], "stall": stall})
    assert (answer.status_code, answer.json()["message"]) == (400, sentence)
