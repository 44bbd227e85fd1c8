"""The model brought back into the notebook: ``job.files``, ``job.load`` and ``job.download``."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path

import httpx
import numpy
import pytest

from nimbus_hub.client import Job as Resource
from nimbus_hub.client import decode
from nimbus_hub.errors import InvalidRequest, NotFound
from nimbus_hub.magics.files import Files
from nimbus_hub.magics.job import Job
from nimbus_hub.magics.loading import load
from tests.unit import fake_service as fake
from tests.unit.fake_service import FakeService


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def job(service: FakeService) -> Job:
    return Job(service.client(), decode(Resource, fake.ended()))


def put(service: FakeService, **files: bytes) -> None:
    """Have the job's output directory hold these files; __ stands for a dot."""
    named = {f"output/{name.replace('__', '.')}": data for name, data in files.items()}

    def listed(request: httpx.Request) -> httpx.Response:
        path = request.url.params["path"]
        items = [
            fake.file(name, len(data))
            for name, data in named.items()
            if not path or name == path or name.startswith(f"{path}/")
        ]
        if not items:
            return fake.error(404, "not_found", f"there is no file {path}")
        return httpx.Response(200, json={"items": items, "is_whole": True})

    service.on("GET", "/api/v1/jobs/j1/files", listed)
    for name, data in named.items():
        headers = {"Content-Type": "application/octet-stream"}
        answer = httpx.Response(200, content=data, headers=headers)
        service.on("GET", f"/api/v1/jobs/j1/files/{name}", answer)


def test_files_are_a_list_that_shows_as_a_table(service: FakeService, job: Job) -> None:
    put(service, model__json=b"{}", log__txt=b"<b>")
    files = job.files
    assert isinstance(files, Files)
    assert files.paths == ["output/model.json", "output/log.txt"]
    assert (len(files), files[0].size_bytes, files[:1][0].host) == (2, 2, "node1")
    lines = repr(files).splitlines()
    assert lines[0].split() == ["path", "size", "changed", "host"]
    assert lines[1].startswith("output/model.json  2B    2025-03-01 ")
    assert "<td>output/model.json</td><td>2B</td>" in files._repr_html_()


def test_many_files_are_shown_in_part(service: FakeService, job: Job) -> None:
    items = [fake.file(f"output/{number}", 1) for number in range(150)]
    service.on("GET", "/api/v1/jobs/j1/files", {"items": items, "is_whole": False})
    assert repr(job.files).splitlines()[-1] == (
        "100 of more than 150 files; job.files.paths has them"
    )
    assert len(job.files.paths) == 150
    service.on("GET", "/api/v1/jobs/j1/files", {"items": [], "is_whole": True})
    assert (repr(job.files), job.files._repr_html_()) == ("no files yet", "no files yet")


def test_a_result_is_loaded_by_its_kind(
    service: FakeService, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numpy.save(tmp_path / "a.npy", numpy.arange(3))
    numpy.savez(tmp_path / "b.npz", x=numpy.arange(2))
    put(
        service,
        result__json=b'{"accuracy": 0.97}',
        notes__txt=b"text\n",
        a__npy=(tmp_path / "a.npy").read_bytes(),
        b__npz=(tmp_path / "b.npz").read_bytes(),
        table__csv=b"a,b\n1,2\n",
    )
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert job.load("result.json") == {"accuracy": 0.97}
    assert job.load("output/notes.txt") == "text\n"
    assert job.load("a.npy").tolist() == [0, 1, 2]
    assert {name: each.tolist() for name, each in job.load("b.npz").items()} == {"x": [0, 1]}
    assert job.load("table.csv") == [{"a": "1", "b": "2"}]


def test_who_misses_a_file_is_told_what_there_is(service: FakeService, job: Job) -> None:
    put(service, model__pt=b"1")
    for call in (job.load, job.download):
        with pytest.raises(NotFound) as caught:
            call("model.json")
        assert caught.value.message == (
            "there is no file output/model.json. Job train (j1): succeeded, ran 0s. "
            "It has written output/model.pt"
        )


def test_weights_are_loaded_without_running_what_is_in_them(
    service: FakeService, job: Job, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.ones(2)}, tmp_path / "m.pt")
    torch.save(tmp_path, tmp_path / "evil.pt")
    put(service, m__pt=(tmp_path / "m.pt").read_bytes(), e__pt=(tmp_path / "evil.pt").read_bytes())
    assert job.load("m.pt")["w"].tolist() == [1.0, 1.0]
    with pytest.raises(InvalidRequest) as caught:
        job.load("e.pt")
    assert caught.value.message == (
        "e.pt holds more than weights, like a whole model, and that can run any code when it is "
        "loaded: have the job save model.state_dict(), or if you trust who wrote it, say "
        "job.load(..., allow_pickle=True)"
    )
    assert job.load("e.pt", allow_pickle=True) == tmp_path


def test_a_pickle_is_loaded_only_if_that_is_wanted(service: FakeService, job: Job) -> None:
    put(service, model__pkl=pickle.dumps([1, 2]))
    with pytest.raises(InvalidRequest) as caught:
        job.load("model.pkl")
    assert caught.value.message == (
        "model.pkl is a pickle, which can run any code when it is loaded: if you trust who wrote "
        "it, say job.load(..., allow_pickle=True)"
    )
    assert job.load("model.pkl", allow_pickle=True) == [1, 2]


@pytest.mark.parametrize(
    ("name", "data", "package"),
    [
        ("m.ubj", b"x", "xgboost"),
        ("m.json", b'{"learner":{}}', "xgboost"),
        ("m.txt", b"tree\nversion=v4\n", "lightgbm"),
        ("m.lgb", b"tree", "lightgbm"),
        ("m.lda", b"x", "gensim"),
        ("m.h5", b"x", "h5py"),
        ("m.joblib", b"x", "joblib"),
    ],
)
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidRequest, match=f"has no {package}: install it"):
        load(tmp_path / name, allow_pickle=True)


def test_a_model_in_several_files_is_brought_whole(
    service: FakeService, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[str]] = []

    class SaveLoad:
        @classmethod
        def load(cls, path: str) -> SaveLoad:
            found.append(sorted(each.name for each in Path(path).parent.iterdir()))
            return cls()

    utils = types.ModuleType("gensim.utils")
    utils.SaveLoad = SaveLoad  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gensim", types.ModuleType("gensim"))
    monkeypatch.setitem(sys.modules, "gensim.utils", utils)
    put(service, t__lda=b"1", t__lda__state=b"2", t__lda__x__npy=b"3", other__npy=b"4")
    job.load("t.lda")
    assert found[0] == ["t.lda", "t.lda.state", "t.lda.x.npy"]


def test_what_nobody_can_load_is_told_with_what_can_be_done(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(InvalidRequest) as caught:
        load(tmp_path / "x.bin")
    assert caught.value.message.startswith("nobody knows how to load x.bin; there are .pt, .pth, ")
    with pytest.raises(InvalidRequest, match="is a directory and no SavedModel"):
        load(tmp_path)


def test_files_are_copied(service: FakeService, job: Job, tmp_path: Path) -> None:
    put(service, m__pt=b"model")
    assert job.download("m.pt", tmp_path) == tmp_path / "m.pt"
    assert (tmp_path / "m.pt").read_bytes() == b"model"
