import asyncio
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nimbus_hub.api.streams import EventStreamHandler
from nimbus_hub.client import Client, GroupRequest, JobRequest
from nimbus_hub.client.resources import Job, LogText
from nimbus_hub.control.tokens import job_token
from nimbus_hub.errors import Ended, Forbidden, Impossible, InvalidRequest, NotFound, TooLarge
from nimbus_hub.executors.accounts import Account, Accounts
from nimbus_hub.executors.base import Executor
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.executors.limits import NoLimits
from nimbus_hub.executors.local import LocalExecutor
from nimbus_hub.model.host import Gpu, Host
from tests.contract.snapshots import MemorySnapshots
from tests.service.conftest import GIB, Service
from tests.service.waiting import until

TRAIN = JobRequest(argv=("python", "train.py"), groups=(GroupRequest(count=2),))


@pytest.fixture
def ada(service: Service) -> Client:
    return service.client("ada-token")


def running(ada: Client, request: JobRequest = TRAIN) -> Job:
    job = ada.submit(request)
    return until(lambda: ada.job(job.id), lambda seen: seen.state == "running")


def ended(ada: Client, job: Job) -> Job:
    return until(lambda: ada.job(job.id), lambda seen: seen.is_ended)


def exit_all(service: Service, executor: FakeExecutor, job: Job, code: int = 0) -> None:
    for replica in job.replicas:
        service.do(partial(executor.exit, replica.id, code))


def test_a_job_runs_and_gives_its_lease_back(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    job = running(ada)
    assert [(r.name, r.rank, r.state) for r in job.replicas] == [
        ("worker-0", 0, "running"),
        ("worker-1", 1, "running"),
    ]
    assert ada.lease(job.lease_id).state == "active"
    exit_all(service, executor, job)
    over = ended(ada, job)
    assert (over.state, over.reason, over.name) == ("succeeded", "", "train")
    lease = ada.lease(job.lease_id)
    assert (lease.state, lease.reason) == ("released", "job succeeded")


def test_replicas_get_the_contract_of_their_job(executor: FakeExecutor, ada: Client) -> None:
    job = running(ada, JobRequest(argv=("python", "a.py"), framework="pytorch", env={"LR": "1"}))
    (spec,) = executor.started
    assert spec.argv == ("python", "a.py")
    assert spec.env["NIMBUS_JOB_ID"] == job.id
    assert spec.env["NIMBUS_TOKEN"] == job_token(b"secret of the tests", job.id)
    assert spec.env["CUDA_VISIBLE_DEVICES"] == ""
    assert spec.env["WORLD_SIZE"] == "1"
    assert spec.env["LR"] == "1"


def test_one_dead_worker_ends_the_gang_and_is_named(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    job = running(ada)
    guilty = job.replicas[1].id
    service.do(lambda: executor.write(guilty, b"step 1\nRuntimeError: boom\n"))
    service.do(lambda: executor.exit(guilty, 3))
    over = ended(ada, job)
    assert over.state == "failed"
    assert over.reason == (
        "worker-1 on cpu-1 exited with code 3; the others were stopped. Its last lines:\n"
        "  step 1\n  RuntimeError: boom"
    )
    assert [r.exit_code for r in over.replicas] == [-15, 3]


def test_a_failed_attempt_is_tried_again_if_asked(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    job = running(ada, JobRequest(argv=("python", "train.py"), retries=1))
    service.do(lambda: executor.exit(job.replicas[0].id, 1))
    second = until(
        lambda: ada.job(job.id), lambda seen: seen.attempt == 2 and seen.state == "running"
    )
    assert second.reason.startswith("attempt 1 of 2 failed: worker-0 on cpu-1 exited with code 1")
    assert second.replicas[0].id != job.replicas[0].id
    service.do(lambda: executor.exit(second.replicas[0].id, 0))
    assert ended(ada, job).state == "succeeded"


def test_a_lost_replica_fails_the_job_with_the_reason(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    job = running(ada)
    service.do(lambda: executor.lose(job.replicas[0].id))
    over = ended(ada, job)
    assert over.state == "failed"
    assert over.reason.startswith("worker-0 on cpu-1 was lost")


def test_stop_ends_every_replica(service: Service, executor: FakeExecutor, ada: Client) -> None:
    job = running(ada)
    ada.stop(job.id)
    over = ended(ada, job)
    assert (over.state, over.reason) == ("stopped", "stopped by ada")
    assert {name for name, _ in executor.stopped} == {r.id for r in job.replicas}
    assert ada.lease(job.lease_id).is_ended
    with pytest.raises(Ended, match="ended already: stopped by ada"):
        ada.stop(job.id)


def test_a_queued_job_can_be_stopped(service: Service, executor: FakeExecutor, ada: Client) -> None:
    all_gpus = JobRequest(argv=("python", "a.py"), groups=(GroupRequest(gpus=4),))
    running(ada, all_gpus)
    waiting = ada.submit(all_gpus)
    seen = until(lambda: ada.job(waiting.id), lambda seen: seen.position == 1)
    assert "GPU" in seen.reason
    ada.stop(waiting.id)
    assert ended(ada, waiting).state == "stopped"
    assert ada.lease(waiting.lease_id).state == "cancelled"


def test_giving_back_the_lease_of_a_job_stops_the_job(ada: Client) -> None:
    job = running(ada)
    ada.release(job.lease_id, "no longer needed")
    over = ended(ada, job)
    assert (over.state, over.reason) == ("stopped", "no longer needed")
    assert ada.lease(job.lease_id).state == "released"


def test_a_job_survives_the_service(service: Service, executor: FakeExecutor, ada: Client) -> None:
    job = running(ada)
    service.stop()
    executor.exit(job.replicas[0].id, 0)
    service.start()
    service.do(lambda: executor.exit(job.replicas[1].id, 0))
    assert ended(ada, job).state == "succeeded"
    assert len(executor.started) == 2


GUEST = JobRequest(argv=("python", "guest.py"), groups=(GroupRequest(cpus=3),))
GPU_WORK = JobRequest(argv=("python", "gpu.py"), groups=(GroupRequest(cpus=7, gpus=1),))
ONE_GPU = Host("gpu-1", 8000, 32 * GIB, (Gpu(0, "A100"),))


def test_a_guest_makes_room_for_gpu_work_and_both_finish(
    make_service: Callable[[Executor], Service],
) -> None:
    executor = FakeExecutor([ONE_GPU])
    service = make_service(executor)
    ada = service.client("ada-token")
    guest = running(ada, GUEST)
    work = running(service.client("bob-token"), GPU_WORK)
    again = until(lambda: ada.job(guest.id), lambda seen: seen.attempt == 2)
    assert (again.state, again.preemptions, again.version > guest.version) == ("queued", 1, True)
    assert again.lease_id != guest.lease_id
    old = ada.lease(guest.lease_id)
    assert (old.state, old.reason) == (
        "preempted",
        "work with GPUs needs the host, on which work without is a guest",
    )
    exit_all(service, executor, work)
    second = until(lambda: ada.job(guest.id), lambda seen: seen.state == "running")
    exit_all(service, executor, second)
    assert ended(ada, guest).state == "succeeded"


def test_waiting_for_news_of_a_job_goes_on_over_its_leases(
    make_service: Callable[[Executor], Service],
) -> None:
    executor = FakeExecutor([ONE_GPU])
    service = make_service(executor)
    ada = service.client("ada-token")
    job = running(ada, GUEST)
    running(service.client("bob-token"), GPU_WORK)
    versions, reasons = [job.version], set[str]()
    with service.raw("ada-token") as http:
        while not any("waits for" in reason for reason in reasons):
            query = {"after": versions[-1], "timeout": 10}
            seen = http.get(f"/api/v1/jobs/{job.id}", params=query).json()
            assert seen["version"] > versions[-1], "no news in time"
            versions.append(seen["version"])
            reasons.add(seen["reason"])


def test_a_real_guest_is_stopped_starts_again_and_both_finish(
    make_service: Callable[[Executor], Service], tmp_path: Path
) -> None:
    # Starts processes, because it is about their end.
    account = replace(Account.current(), name="ada", home=tmp_path)
    executor = LocalExecutor(
        tmp_path / "executor",
        {"default": Path(sys.executable).parent},
        MemorySnapshots(),
        [ONE_GPU],
        accounts=Accounts(account),
        limits=NoLimits(),
    )
    service = make_service(executor)
    ada = service.client("ada-token")
    may_end = tmp_path / "may-end"
    wait = f"import os, time\nwhile not os.path.exists({str(may_end)!r}): time.sleep(0.05)"
    argv = ("python", "-c", f"import os\nprint('attempt', os.environ['NIMBUS_ATTEMPT'])\n{wait}")
    guest = running(ada, replace(GUEST, argv=argv))
    until(lambda: ada.logs(guest.id), lambda logs: "attempt 1" in logs[0].text)
    work = ada.submit(replace(GPU_WORK, argv=("python", "-c", "print('gpu')")))
    assert until(lambda: ada.job(work.id), lambda seen: seen.is_ended).state == "succeeded"
    again = until(
        lambda: ada.job(guest.id), lambda seen: seen.attempt == 2 and seen.state == "running"
    )
    assert again.reason.startswith("attempt 1 was preempted")
    may_end.touch()
    assert ended(ada, guest).state == "succeeded"
    with service.raw("ada-token") as http:
        logs = http.get(f"/api/v1/jobs/{guest.id}/logs", params={"attempt": 0}).json()["items"]
    assert [part["text"].strip() for part in logs] == ["attempt 1", "attempt 2"]
    # Both attempts go with the job, and nothing of the other.
    directory = tmp_path / "nimbus"
    assert {path.name for path in directory.iterdir()} == {guest.id, work.id}
    ada.delete(guest.id)
    service.skip(timedelta(minutes=1))
    until(lambda: [path.name for path in directory.iterdir()], lambda left: left == [work.id])
    records = tmp_path / "executor" / "replicas"
    until(lambda: len(list(records.iterdir())), lambda left: left == 1)
    assert ada.logs(work.id)[0].text == "gpu\n"


def test_a_job_of_a_host_that_left_is_tried_again_or_fails_with_the_reason(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    tried = running(ada, JobRequest(argv=("python", "a.py"), retries=1))
    failed = running(ada)
    assert service.control is not None
    refresh = service.control.reconciler._refresh
    executor._hosts = tuple(host for host in executor._hosts if host.name != "cpu-1")
    service.do(lambda: asyncio.ensure_future(refresh()))
    over = ended(ada, failed)
    assert (over.state, over.reason) == (
        "failed",
        "host cpu-1 is not in the inventory any more",
    )
    assert ada.lease(failed.lease_id).state == "lost"
    again = until(
        lambda: ada.job(tried.id), lambda seen: seen.attempt == 2 and seen.state == "running"
    )
    assert again.replicas[0].host == "gpu-1"
    assert ada.lease(tried.lease_id).reason == over.reason


def test_following_misses_no_line_and_ends_with_the_job(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    job = running(ada, JobRequest(argv=("python", "train.py")))
    replica = job.replicas[0].id
    service.do(lambda: executor.write(replica, b"one\n"))
    stream: Iterator[LogText | Job] = ada.follow(job.id)
    text = ""
    for part in stream:
        if isinstance(part, LogText):
            text += part.text
            if text == "one\n":
                service.do(lambda: executor.write(replica, b"two\n"))
            elif text.endswith("two\n"):
                service.do(lambda: executor.exit(replica, 0))
    assert text == "one\ntwo\n"
    assert isinstance(part, Job)
    assert part.state == "succeeded"
    assert [one.text for one in ada.logs(job.id, tail=1)] == ["two\n"]


def test_no_line_waits_until_the_one_before_it_is_acknowledged(
    service: Service, executor: FakeExecutor, ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []
    send = EventStreamHandler.send

    async def seen(handler: EventStreamHandler, *event: Any) -> None:
        # Before it is sent: who follows has the line before this goes on.
        own = handler.request.connection.stream.socket  # type: ignore[union-attr]
        at_once.append(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        await send(handler, *event)

    monkeypatch.setattr(EventStreamHandler, "send", seen)
    job = running(ada)
    service.do(lambda: executor.write(job.replicas[0].id, b"one\n"))
    exit_all(service, executor, job)
    *parts, last = ada.follow(job.id)
    assert isinstance(last, Job)
    assert any(isinstance(part, LogText) for part in parts)
    assert len(at_once) >= 2
    assert all(at_once)


def test_progress_is_told_by_the_job_itself(service: Service, ada: Client) -> None:
    job = running(ada)
    itself = service.client(job_token(b"secret of the tests", job.id))
    itself.report_progress(job.id, 0.5, "epoch 5 of 10")
    seen = ada.job(job.id)
    assert (seen.progress, seen.progress_message) == (0.5, "epoch 5 of 10")
    other = running(ada)
    with pytest.raises(NotFound):
        itself.report_progress(other.id, 0.5)
    with pytest.raises(Forbidden):
        itself.stop(job.id)


def test_a_dry_run_says_where_and_changes_nothing(ada: Client) -> None:
    plan = ada.plan(TRAIN)
    assert [(slot.name, slot.host) for slot in plan.slots] == [
        ("worker-0", "cpu-1"),
        ("worker-1", "cpu-1"),
    ]
    assert ada.jobs(state="all") == ()


@pytest.mark.parametrize(
    ("request_", "error", "sentence"),
    [
        (JobRequest(argv=("x",), framework="torch"), InvalidRequest, "pytorch"),
        (JobRequest(argv=("x",), environment="cobol"), InvalidRequest, "no environment 'cobol'"),
        (JobRequest(argv=("x",), snapshot="0" * 64), NotFound, "snapshot"),
        (JobRequest(argv=("x",), duration="30d"), InvalidRequest, "at most 7d, got 30d"),
        (JobRequest(argv=("x",), groups=(GroupRequest(gpus=9),)), Impossible, "9"),
        (
            JobRequest(argv=("x",), framework="pytorch", groups=(GroupRequest("ps"),)),
            InvalidRequest,
            "parameter",
        ),
    ],
)
def test_a_bad_job_is_one_sentence_and_changes_nothing(
    ada: Client, request_: JobRequest, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence) as caught:
        ada.submit(request_)
    assert "\n" not in str(caught.value)
    assert ada.jobs(state="all") == ()
    assert ada.leases(state="all") == ()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "argv is missing"),
        ({"argv": ["x"], "wokers": 2}, "wokers is not known; known are"),
        ({"argv": ["x"], "groups": [{"count": 0}]}, "workers must be at least 1, got 0"),
        ({"argv": ["x"], "groups": [{"memory": "lots"}]}, "memory must be a size like 4G"),
        (
            {"argv": ["x"], "groups": [{"gpus": "A100:"}]},
            "gpus must be a number, a share of one GPU",
        ),
        ({"argv": ["x"], "retries": -1}, "retries: "),
        ({"argv": []}, "argv: "),
        ([], "the body: "),
    ],
)
def test_the_api_refuses_in_a_sentence(service: Service, body: object, sentence: str) -> None:
    with service.raw("ada-token") as http:
        answer = http.post("/api/v1/jobs", json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"
    assert answer.json()["message"].startswith(sentence)


def test_a_directory_is_uploaded_once(ada: Client, service: Service, tmp_path: Path) -> None:
    work = tmp_path / "project"
    work.mkdir()
    (work / "train.py").write_text("print(1)")
    first = ada.upload(work)
    assert ada.upload(work) == first
    assert ada.submit(JobRequest(argv=("python", "train.py"), snapshot=first)).state == "queued"
    bob = service.client("bob-token")
    with pytest.raises(NotFound):
        bob.submit(JobRequest(argv=("python", "train.py"), snapshot=first))


def test_a_directory_over_the_limit_names_its_largest_files(ada: Client, tmp_path: Path) -> None:
    work = tmp_path / "project"
    work.mkdir()
    (work / "weights.bin").write_bytes(bytes(11 * 2**20))
    with pytest.raises(TooLarge, match=r"weights\.bin"):
        ada.upload(work)


@pytest.mark.parametrize("body", [b"", b"no tar at all", b"x" * 2048])
def test_an_upload_that_is_no_tar_is_refused(service: Service, body: bytes) -> None:
    with service.raw("ada-token") as http:
        answer = http.put("/api/v1/snapshots/files", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_an_upload_over_the_limit_is_refused_before_it_is_read(service: Service) -> None:
    with service.raw("ada-token") as http:
        answer = http.put("/api/v1/snapshots/files", content=bytes(13 * 2**20))
    assert answer.status_code in (400, 413)
