"""What one user sends to harm the service or others: refused, bounded or made harmless."""

import time
from dataclasses import replace
from functools import partial

import pytest

from nimbus_hub.api import events, logs, streams
from nimbus_hub.client import Client, GroupRequest, JobRequest
from nimbus_hub.control.jobs import Jobs, JobView
from nimbus_hub.executors.fake import FakeExecutor
from tests.service.conftest import CALLERS, Service
from tests.service.waiting import until

TRAIN = JobRequest(argv=("python", "train.py"))
DIGEST = "0" * 64


@pytest.fixture
def ada(service: Service) -> Client:
    return service.client("ada-token")


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("jobs", '{"argv": ["x", "\\ud800"]}', 400, "argv.1: "),
        ("jobs", '{"argv": ["x"], "env": {"A": "\\ud800"}}', 400, "env.A: "),
        ("jobs", '{"argv": ["x", "a\\u0000b"]}', 400, "argv.1: "),
        ("jobs", '{"argv": ["x"], "env": {"A\\n": "b"}}', 400, "env.A"),
        ("jobs", '{"argv": ["%s"]}' % ("x" * 2**17), 400, "argv.0: "),
        ("jobs", '{"argv": [%s"x"]}' % ('"%s", ' % ("x" * 2**16) * 17), 413, "at most 1M"),
        ("jobs", '{"argv": ["x"], "groups": [{"cpus": NaN}]}', 400, "cpus must be a number"),
        ("jobs", '{"argv": ["x"], "groups": [{"cpus": 1e400}]}', 400, "cpus must be a number"),
        ("jobs", '{"argv": ["x"], "groups": [{"memory": -1}]}', 400, "memory must be"),
        ("jobs", '{"argv": ["x"], "duration": 1e400}', 400, "duration"),
        ("jobs", '{"argv": ["x"], "retries": 1e400}', 400, "retries: "),
        (
            "snapshots",
            f'{{"files": [{{"path": "a", "size": 1{"0" * 400}, "digest": "{DIGEST}"}}]}}',
            400,
            "files.0.size: ",
        ),
    ],
)
def test_what_no_process_could_be_given_is_refused(
    service: Service, ada: Client, path: str, body: str, status: int, words: str
) -> None:
    with service.raw("ada-token") as http:
        answer = http.post(f"/api/v1/{path}", content=body)
    assert (answer.status_code, ada.jobs(state="all")) == (status, ())
    assert words in answer.json()["message"]


def test_the_output_of_many_replicas_is_bounded_together(
    service: Service, executor: FakeExecutor, ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_TOGETHER_BYTES", 40)
    job = ada.submit(replace(TRAIN, groups=(GroupRequest(count=2),)))
    job = until(lambda: ada.job(job.id), lambda seen: seen.state == "running")
    for replica in job.replicas:
        service.do(partial(executor.write, replica.id, b"0123456789\n" * 5))
    until(lambda: ada.logs(job.id), lambda seen: len(seen[1].text) == 20)
    assert [len(item.text) for item in ada.logs(job.id, tail=100)] == [20, 20]
    assert len(ada.logs(job.id, replica="worker-1")[0].text) == 40


def test_no_name_or_reason_acts_on_the_terminal_of_who_reads_it(ada: Client) -> None:
    job = ada.submit(JobRequest(argv=("sh", "\x1b[2Ja\nb.sh"), name=""))
    assert job.name == "a b"
    named = ada.submit(JobRequest(argv=("x",), name="\x1b]52;c;Zm9v\x07b\x9b31m\u202ec"))
    assert named.name == "b 31m c"
    assert len(ada.submit(JobRequest(argv=("x" * 5000,))).name) == 100
    stopped = ada.stop(job.id, reason="gone\r\n2026-01-01 INFO lease l-1 granted\x1b[31m")
    assert "gone 2026-01-01 INFO lease l-1 granted" in stopped.reason


def test_what_a_program_printed_does_not_act_in_its_jobs_reason(
    service: Service, executor: FakeExecutor, ada: Client
) -> None:
    job = ada.submit(TRAIN)
    job = until(lambda: ada.job(job.id), lambda seen: seen.state == "running")
    replica = job.replicas[0].id
    service.do(lambda: executor.write(replica, b"\x1b[31m  boom\x1b]0;title\x07\x9d!\n"))
    service.do(lambda: executor.exit(replica, 1))
    over = until(lambda: ada.job(job.id), lambda seen: seen.is_ended)
    assert "\x1b" not in over.reason
    assert over.reason.splitlines()[1].startswith("    boom")


@pytest.mark.parametrize("path", ["events", "jobs/{}/logs/stream"])
def test_a_stream_ends_when_its_reader_is_removed(
    service: Service, ada: Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(streams, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(streams, "PING_SECONDS", 0.05)
    monkeypatch.setattr(events, "PING_SECONDS", 0.05)
    job = ada.submit(TRAIN)
    monkeypatch.setitem(CALLERS, "fired-token", CALLERS["ada-token"])
    with (
        service.raw("fired-token") as http,
        http.stream("GET", f"/api/v1/{path.format(job.id)}") as answer,
    ):
        assert answer.status_code == 200
        monkeypatch.delitem(CALLERS, "fired-token")
        deadline = time.monotonic() + 10
        for _ in answer.iter_raw():
            assert time.monotonic() < deadline


def test_a_job_is_not_followed_for_who_is_gone(
    service: Service, ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    get = Jobs.get

    async def counted(jobs: Jobs, job_id: str, owner: str | None = None) -> JobView:
        looks.append(job_id)
        return await get(jobs, job_id, owner)

    def looks_soon() -> int:
        looks.clear()
        time.sleep(0.6)
        return len(looks)

    job = ada.submit(TRAIN)
    monkeypatch.setattr(Jobs, "get", counted)
    with (
        service.raw("ada-token") as http,
        http.stream("GET", f"/api/v1/jobs/{job.id}/logs/stream") as answer,
    ):
        chunks = answer.iter_raw()
        next(chunks)
        assert looks_soon() > 0
    until(looks_soon, lambda count: count == 0, seconds=5)
