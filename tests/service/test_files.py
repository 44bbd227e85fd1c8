"""Files of jobs over HTTP: listed, read in pieces, copied whole; the owner's alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from nimbus_hub.client import Client, GroupRequest, JobRequest
from nimbus_hub.client import files as client_files
from nimbus_hub.client.resources import Job
from nimbus_hub.control import files as control_files
from nimbus_hub.control.tokens import job_token
from nimbus_hub.errors import Conflict, Deleted, NotFound
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.model.file import FilePart
from tests.service.waiting import until

if TYPE_CHECKING:
    from tests.service.conftest import Service

TRAIN = JobRequest(argv=("python", "train.py"), groups=(GroupRequest(count=2),))


@pytest.fixture
def ada(service: Service) -> Client:
    return service.client("ada-token")


@pytest.fixture
def job(ada: Client) -> Job:
    submitted = ada.submit(TRAIN)
    return until(lambda: ada.job(submitted.id), lambda seen: seen.state == "running")


@pytest.fixture
def put(executor: FakeExecutor, job: Job) -> Callable[[str, bytes], None]:
    def put(path: str, data: bytes) -> None:
        executor.put(job.replicas[0].id, path, data)

    return put


Put = Callable[[str, bytes], None]


def names(client: Client, job: Job, path: str = "") -> list[str]:
    return [file.path for file in client.files(job.id, path).items]


def test_files_are_listed_with_size_time_and_host(ada: Client, job: Job, put: Put) -> None:
    assert (ada.files(job.id).items, ada.files(job.id).is_whole) == ((), True)
    put("output/model.pt", b"12345")
    put("logs/events", b"1")
    put("checkpoints/last/w", b"")
    assert names(ada, job) == ["checkpoints/last/w", "logs/events", "output/model.pt"]
    assert names(ada, job, "logs") == ["logs/events"]
    assert names(ada, job, "/logs/") == ["logs/events"]
    assert names(ada, job, "model.pt") == ["output/model.pt"]
    (file,) = ada.files(job.id, "output").items
    assert (file.size_bytes, file.host) == (5, job.replicas[0].host)
    first = ada.files(job.id, limit=1)
    assert (len(first.items), first.is_whole) == (1, False)
    with pytest.raises(NotFound, match="there is no file output/none"):
        ada.files(job.id, "none")


def test_a_file_is_read_whole_or_from_an_offset(
    service: Service, ada: Client, job: Job, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_files, "_PART_BYTES", 1000)
    data = bytes(range(256)) * 20
    put("output/ä b/100%.bin", data)
    assert ada.read_file(job.id, "ä b/100%.bin") == data
    assert ada.read_file(job.id, "ä b/100%.bin", 100, 2500) == data[100:2600]
    assert ada.read_file(job.id, "ä b/100%.bin", len(data)) == b""
    with service.raw("ada-token") as http:
        answer = http.get(f"/api/v1/jobs/{job.id}/files/output/%C3%A4%20b/100%25.bin?offset=5000")
    assert (answer.content, answer.headers["Content-Length"]) == (data[5000:], "120")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    put("output/empty", b"")
    assert ada.read_file(job.id, "empty") == b""


def test_a_file_that_has_changed_is_not_taken_for_what_it_was(
    service: Service,
    ada: Client,
    job: Job,
    put: Put,
    executor: FakeExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put("output/model", b"first")
    (file,) = ada.files(job.id, "output").items
    put("output/model", b"second")
    with pytest.raises(Conflict, match="output/model has changed since"):
        ada.read_file(job.id, "model", version=file.version)
    monkeypatch.setattr(control_files, "_PART_BYTES", 1)
    real = executor.read_file

    async def changing(replica_id: str, path: str, offset: int, limit: int) -> FilePart:
        if offset:
            executor.put(replica_id, path, b"third!")
        return await real(replica_id, path, offset, limit)

    monkeypatch.setattr(executor, "read_file", changing)
    with service.raw("ada-token") as http, pytest.raises(httpx.RemoteProtocolError):
        http.get(f"/api/v1/jobs/{job.id}/files/output/model")


def test_a_directory_is_copied_as_it_is(
    ada: Client, job: Job, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_files, "_PIECE_BYTES", 3)
    put("output/model.pt", b"0123456789")
    put("output/sub/empty", b"")
    told: list[tuple[int, int]] = []
    place = ada.download(job.id, "output", tmp_path, progress=lambda *done: told.append(done))
    assert place == tmp_path / "output"
    assert (place / "model.pt").read_bytes() == b"0123456789"
    assert (place / "sub/empty").read_bytes() == b""
    assert sorted(path.name for path in place.rglob("*")) == ["empty", "model.pt", "sub"]
    assert told == [(3, 10), (6, 10), (9, 10), (10, 10)]
    assert ada.download(job.id, "model.pt", tmp_path) == tmp_path / "model.pt"
    assert ada.download(job.id, "model.pt", tmp_path / "mine.pt") == tmp_path / "mine.pt"
    assert (tmp_path / "mine.pt").read_bytes() == b"0123456789"
    assert ada.download(job.id, "", tmp_path) == tmp_path / job.id
    assert (tmp_path / job.id / "output/model.pt").is_file()


def test_a_file_that_changes_while_it_is_copied_is_copied_anew(
    ada: Client, job: Job, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_files, "_PIECE_BYTES", 3)
    put("output/model", b"first version")
    changes = [b"second one", b"the last of all"]

    def progress(done: int, total: int) -> None:
        if changes:
            put("output/model", changes.pop(0))

    copied = ada.download(job.id, "model", tmp_path, progress=progress)
    assert copied.read_bytes() == b"the last of all"
    changes.extend([b"1111", b"22222", b"333333"])
    with pytest.raises(Conflict, match="output/model has changed since"):
        ada.download(job.id, "model", tmp_path, progress=progress)
    assert copied.read_bytes() == b"the last of all"
    assert [path.name for path in tmp_path.glob("*model*")] == ["model"]


def test_files_are_their_owners(service: Service, ada: Client, job: Job, put: Put) -> None:
    put("output/model", b"mine")
    bob = service.client("bob-token")
    for ask in (lambda: bob.files(job.id), lambda: bob.read_file(job.id, "model")):
        with pytest.raises(NotFound, match=f"there is no job {job.id}"):
            ask()
    assert service.client("admin-token").read_file(job.id, "model") == b"mine"
    own = service.client(job_token(b"secret of the tests", job.id))
    assert own.read_file(job.id, "model") == b"mine"
    assert ada.read_file(job.id, "model") == b"mine"


def test_of_several_hosts_the_lowest_rank_comes_first(
    ada: Client, job: Job, executor: FakeExecutor, put: Put
) -> None:
    put("output/model", b"of rank 0")
    executor.put(job.replicas[1].id, "output/model", b"of rank 1")
    assert ada.read_file(job.id, "model") == b"of rank 0"
    assert ada.read_file(job.id, "model", replica="worker-1") == b"of rank 1"
    assert [file.size_bytes for file in ada.files(job.id, "output", "worker-1").items] == [9]
    with pytest.raises(NotFound, match="has no replica 'worker-7'"):
        ada.files(job.id, replica="worker-7")


def test_files_stay_after_the_end_and_a_silent_host_is_named(
    ada: Client, service: Service, job: Job, executor: FakeExecutor, put: Put
) -> None:
    put("output/model", b"model")
    for replica in job.replicas:
        service.do(lambda id=replica.id: executor.exit(id, 0))  # type: ignore[misc]
    until(lambda: ada.job(job.id), lambda seen: seen.is_ended)
    assert ada.read_file(job.id, "model") == b"model"
    executor.unreachable = True
    with service.raw("ada-token") as http:
        answer = http.get(f"/api/v1/jobs/{job.id}/files")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


def test_what_a_job_left_is_deleted_by_its_owner_once_it_is_over(
    ada: Client, service: Service, job: Job, executor: FakeExecutor, put: Put
) -> None:
    put("output/model", b"model")
    with pytest.raises(Conflict, match=f"job {job.id} is running; stop it first: nimbus stop"):
        ada.delete(job.id)
    for replica in job.replicas:
        service.do(lambda id=replica.id: executor.exit(id, 3))  # type: ignore[misc]
    ended = until(lambda: ada.job(job.id), lambda seen: seen.is_ended)
    with pytest.raises(NotFound, match=f"there is no job {job.id}"):
        service.client("bob-token").delete(job.id)
    assert ada.read_file(job.id, "model") == b"model"
    deleted = ada.delete(job.id)
    assert (deleted.state, deleted.reason) == (ended.state, ended.reason)
    assert deleted.deletion == "deleted by ada"
    words = r"the output and files of job j-\w+ were deleted at .* UTC: deleted by ada"
    for ask in (ada.files, ada.read_file, ada.logs, ada.follow):
        with pytest.raises(Deleted, match=words):
            list(ask(job.id, "model") if ask == ada.read_file else ask(job.id))
    service.skip(timedelta(minutes=1))
    until(lambda: [executor.keeps(each.id) for each in job.replicas], lambda seen: not any(seen))
    assert ada.job(job.id).ended_at == ended.ended_at
    assert service.client("admin-token").delete(job.id).deletion == "deleted by ada"


def test_a_job_that_waits_has_no_files(ada: Client) -> None:
    waiting = ada.submit(JobRequest(("x",), groups=(GroupRequest(gpus=4), GroupRequest("b", 1, 8))))
    assert ada.files(waiting.id).items == () or waiting.state != "queued"
    for call in (ada.read_file, ada.files, ada.download):
        with pytest.raises(NotFound, match="there is no file output/model"):
            call(waiting.id, "model")


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "offset=-1", "what=1"])
def test_a_wrong_question_is_refused(service: Service, job: Job, put: Put, query: str) -> None:
    put("output/model", b"model")
    with service.raw("ada-token") as http:
        answer = http.get(f"/api/v1/jobs/{job.id}/files/output/model?{query}")
    assert answer.status_code == 400
