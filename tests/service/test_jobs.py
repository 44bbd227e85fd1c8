from collections.abc import Iterator
from pathlib import Path

import pytest

from nimbus_hub.client import Client, GroupRequest, JobRequest
from nimbus_hub.client.resources import Job, LogText
from nimbus_hub.control.tokens import job_token
from nimbus_hub.errors import Ended, Forbidden, Impossible, InvalidRequest, NotFound, TooLarge
from nimbus_hub.executors.fake import FakeExecutor
from tests.service.conftest import Service
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
        service.do(lambda replica=replica: executor.exit(replica.id, code))


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
        ({"argv": ["x"], "groups": [{"gpus": "A100:"}]}, "gpus must be a number or MODEL:NUMBER"),
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
