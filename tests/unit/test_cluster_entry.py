"""An engine more in a cluster file: the lines for it, and the file with nothing else changed."""

from __future__ import annotations

import os
from dataclasses import replace
from difflib import ndiff
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_hub.control.cluster import parse_cluster
from nimbus_hub.control.cluster_entry import engine_text, extended
from nimbus_hub.control.cluster_file import ClusterFile
from nimbus_hub.errors import Conflict, InvalidRequest
from nimbus_hub.model.engine import Engine

PATH = Path("cluster.yaml")
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "cluster.yaml"
PLAIN = Engine("gpu-3", "ssh://docker@10.0.0.7", datacenter="far")
FULL = Engine(
    "gpu-3", "tcp://10.0.0.7:2376", "/etc/nimbus/tls", "10.0.0.8", "far", "r2",
    {"gpus": "A100:4", "nvlink": "yes", "shelf": "007"}, "bridge", "10.66.0.0/16",
)  # fmt: skip
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)


def added(text: str, engine: Engine = PLAIN) -> list[str]:
    """Return what was added to a text, lines; whatever else changed is there with its sign."""
    found, read = extended(text, engine, PATH)
    assert parse_cluster(found, PATH).engines[-1] == read
    return [line.rstrip() for line in ndiff(text.splitlines(), found.splitlines())
            if line[0] in "+-?"]  # fmt: skip


ITEM = ["+   - host: gpu-3", "+     endpoint: ssh://docker@10.0.0.7", "+     datacenter: far"]


def test_the_lines_of_an_engine_are_read_as_that_engine() -> None:
    assert engine_text(FULL) == (
        "engines:\n"
        "  - host: gpu-3\n"
        "    endpoint: tcp://10.0.0.7:2376\n"
        "    tls: /etc/nimbus/tls\n"
        "    address: 10.0.0.8\n"
        "    datacenter: far\n"
        "    rack: r2\n"
        "    labels:\n"
        "      gpus: A100:4\n"
        "      nvlink: 'yes'\n"
        "      shelf: '007'\n"
        "    subnet: 10.66.0.0/16\n"
    )
    assert parse_cluster(engine_text(FULL), PATH).engines == (FULL,)


@given(WORDS, st.dictionaries(WORDS, WORDS))
def test_whatever_is_written_of_an_engine_is_read_again(name: str, labels: dict[str, str]) -> None:
    engine = Engine(name, "unix:///var/run/docker.sock", rack=name, labels=labels)
    assert parse_cluster(engine_text(engine), PATH).engines == (engine,)


def test_the_address_is_that_of_the_endpoint_where_none_is_given() -> None:
    _, read = extended("", Engine("gpu-3", "tcp://10.0.0.7:2376", "/tls"), PATH)
    assert read.address == "10.0.0.7"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ["+ engines:", *ITEM]),
        ("# nothing yet", ["+ engines:", *ITEM]),
        ("quota: {gpus: 2}\n", ["+ engines:", *ITEM]),
        ("engines:  # ours\nquota: {gpus: 2}\n", ITEM),
        ("engines:\n  - host: a\n    endpoint: ssh://a  # old\nquota: {gpus: 2}", ITEM),
        ("engines:\n  - {host: a, endpoint: 'ssh://a'}\n\n# Rules.\nquota: {gpus: 2}\n", ITEM),
        ("engines:\n  - host: a\n    endpoint: ssh://a\n    # spare\n  # end\nquota: {}\n", ITEM),
        ("engines:\n- host: a\n  endpoint: ssh://a", [line.replace("+   ", "+ ") for line in ITEM]),
        (
            "engines:\n  - &a {host: a, endpoint: 'ssh://a'}\n  - <<: *a\n    host: b\n"
            "    datacenter: b\n    labels:\n      x: y\n",
            ITEM,
        ),
    ],
)
def test_an_item_more_is_all_that_changes(text: str, lines: list[str]) -> None:
    assert added(text) == lines


def test_the_comments_of_the_last_item_stay_with_it() -> None:
    text = "engines:\n  - host: a\n    endpoint: ssh://a\n    # spare\n  # end\n"
    found, _ = extended(text, PLAIN, PATH)
    assert found.startswith(text.removesuffix("  # end\n") + "  - host: gpu-3\n")
    assert found.endswith("far\n  # end\n")


@pytest.mark.parametrize("given", ["[]", "[{host: a, endpoint: 'ssh://a'}]"])
def test_a_list_in_brackets_stays_one(given: str) -> None:
    text = f"engines: {given}  # ours\nquota: {{gpus: 2}}\n"
    found, read = extended(text, PLAIN, PATH)
    comma = ", " if given != "[]" else ""
    item = "{host: gpu-3, endpoint: 'ssh://docker@10.0.0.7', datacenter: far}]"
    assert found == text.replace("]", comma + item)
    assert read == replace(PLAIN, address="10.0.0.7")


def test_a_whole_file_keeps_all_its_comments() -> None:
    text = EXAMPLE.read_text()
    assert added(text, Engine("box-2", "ssh://box-2", datacenter="south", rack="s1")) == [
        "+   - host: box-2",
        "+     endpoint: ssh://box-2",
        "+     datacenter: south",
        "+     rack: s1",
    ]


@pytest.mark.parametrize(
    ("text", "engine", "kind", "why"),
    [
        ("engines:\n  - {host: gpu-3, endpoint: 'ssh://a', datacenter: a}", PLAIN, InvalidRequest,
         r"would be refused: cluster\.yaml:3: engines\[1\]\.host must differ from the others"),
        ("engines: [{host: a, endpoint: 'ssh://a'}]", Engine("b", "ssh://b"), InvalidRequest,
         r"network must be host or an overlay: default has other hosts"),
        ("datacenters: [{name: north}]", PLAIN, InvalidRequest, "must be one of north, got 'far'"),
        ("", Engine("b", "ssh://b", address="here"), InvalidRequest, "must be an IPv4 address"),
        ("hosts: 5", PLAIN, Conflict, r"must be right first: cluster\.yaml:1: hosts must be a li"),
        ("{quota: {gpus: 2}}", PLAIN, InvalidRequest, "this is not YAML"),
        ("engines: null\n", PLAIN, InvalidRequest, "this is not YAML"),
    ],
)  # fmt: skip
def test_an_engine_with_which_the_file_would_be_refused_is(
    text: str, engine: Engine, kind: type[Exception], why: str
) -> None:
    with pytest.raises(kind, match=why):
        extended(text, engine, PATH)


def test_a_file_is_written_with_its_owner_and_mode_and_through_its_link(tmp_path: Path) -> None:
    path, link = tmp_path / "real.yaml", tmp_path / "cluster.yaml"
    before = b"# ours\r\nquota: {gpus: 2}  # two\r\n"
    path.write_bytes(before)
    path.chmod(0o640)
    link.symlink_to(path.name)
    ClusterFile(link).add(PLAIN)
    assert path.read_bytes() == before + engine_text(PLAIN).encode()
    assert (link.is_symlink(), path.stat().st_mode & 0o777) == (True, 0o640)
    assert path.stat().st_uid == os.getuid()
    assert sorted(tmp_path.iterdir()) == [link, path]


def test_a_file_that_cannot_be_written_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("quota: {gpus: 2}\n")
    file = ClusterFile(path)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(Conflict, match=r"cluster\.yaml cannot be written: Operation not permitted"):
        file.add(PLAIN)
    assert path.read_text() == "quota: {gpus: 2}\n"
    assert list(tmp_path.iterdir()) == [path]
