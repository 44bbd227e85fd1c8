"""``nimbus hosts``: the table, and draining."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import httpx
import pytest
from click.testing import CliRunner, Result

from nimbus_hub.cli.main import nimbus
from nimbus_hub.model.engine import Engine
from tests.unit import fake_service as fake
from tests.unit.fake_service import FakeService

Call = Callable[..., Result]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def call(service: FakeService) -> Call:
    return lambda *words: CliRunner().invoke(nimbus, words, obj=service.client)


def rows(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def shared(free_milli: int) -> dict[str, object]:
    gpu = {"index": 0, "model": "T4", "memory_bytes": 0, "free_milli": free_milli}
    return fake.host(
        name="node2", gpus=[gpu | {"lease_id": "l1", "lease_ids": ["l1", "other"], "fault": ""}]
    )


def test_shares_of_gpus_are_counted(call: Call, service: FakeService) -> None:
    service.on("GET", "/api/v1/hosts", fake.hosts(fake.host(), shared(250)))
    assert rows(call("hosts"))[1:] == [
        "node1 up 6.5 of 8 16G of 32G 1 of 2 A100 dc1 r1",
        "node2 up 6.5 of 8 16G of 32G 0.25 of 1 T4 dc1 r1",
    ]


def test_why_a_host_takes_nothing_is_shown_where_one_does_not(
    call: Call, service: FakeService
) -> None:
    away = fake.host(name="n2", gpus=[], state="draining", state_reason="drained by root: fans")
    service.on("GET", "/api/v1/hosts", fake.hosts(fake.host(gpus=[]), away))
    head, ready, draining = rows(call("hosts"))
    assert head.endswith("DATACENTER RACK REASON")
    assert ready == "node1 up 6.5 of 8 16G of 32G dc1 r1"
    assert draining == "n2 draining 6.5 of 8 16G of 32G dc1 r1 drained by root: fans"


def test_labels_are_shown_if_asked_for(call: Call, service: FakeService) -> None:
    host = fake.host(gpus=[], labels={"zone": "1", "owner": "ml"})
    service.on("GET", "/api/v1/hosts", fake.hosts(host))
    assert rows(call("hosts", "-v"))[1].endswith("dc1 r1 owner=ml, zone=1")
    assert rows(call("hosts"))[1].endswith("dc1 r1")
    found = json.loads(call("hosts", "--json").stdout)
    assert [each["labels"] for each in found] == [{"zone": "1", "owner": "ml"}]


def test_a_refused_cluster_file_is_told_beside_the_hosts(call: Call, service: FakeService) -> None:
    error = "cluster.yaml:12: hosts[2].gpus.count must be a number from 0 to 1000, got -1"
    service.on("GET", "/api/v1/hosts", fake.hosts(fake.host(), error=error))
    for words in (["hosts"], ["hosts", "--json"]):
        result = call(*words)
        assert result.exit_code == 0
        assert error in result.stderr
        assert error not in result.stdout


def test_a_host_is_drained_and_undrained(call: Call, service: FakeService) -> None:
    away = fake.host(state="draining", state_reason="drained by root: new fans")
    service.on("POST", "/api/v1/hosts/node1/drain", away)
    service.on("POST", "/api/v1/hosts/node1/undrain", fake.host(state="ready"))
    told = call("hosts", "drain", "node1", "--reason", "new fans").stdout
    assert told == "node1 draining: drained by root: new fans\n"
    assert service.body() == {"reason": "new fans"}
    assert call("hosts", "undrain", "node1").stdout == "node1 ready\n"
    assert json.loads(call("hosts", "undrain", "--json", "node1").stdout)["name"] == "node1"


def test_what_is_missing_on_hosts_is_told_with_the_remedy(call: Call, service: FakeService) -> None:
    good = {"name": "version", "is_ok": True, "text": "Docker 20.10", "remedy": ""}
    bad = {"name": "clock", "is_ok": False, "text": "60 s behind", "remedy": "use NTP"}
    service.on("GET", "/api/v1/hosts", fake.hosts(fake.host(name="n1"), fake.host(name="n2")))
    service.on("GET", "/api/v1/hosts/n1/check", {"items": [good]})
    service.on("GET", "/api/v1/hosts/n2/check", {"items": [good, bad]})
    assert rows(call("hosts", "check", "n1"))[1:] == ["n1 version ok Docker 20.10"]
    result = call("hosts", "check")
    assert result.exit_code == 1
    assert " ".join(result.stdout.split()).endswith("n2 clock MISSING 60 s behind use NTP")
    found = json.loads(call("hosts", "check", "--json", "n2").stdout)
    assert found == {"n2": [good, bad]}


def test_hosts_without_anything_to_check_are_left_out_unless_named(
    call: Call, service: FakeService
) -> None:
    error = {"code": "conflict", "message": "host n2 is of the executor local"}
    service.on("GET", "/api/v1/hosts", fake.hosts(fake.host(name="n1"), fake.host(name="n2")))
    service.on("GET", "/api/v1/hosts/n1/check", {"items": [GOOD]})
    service.on("GET", "/api/v1/hosts/n2/check", httpx.Response(409, json=error))
    assert list(json.loads(call("hosts", "check", "--json").stdout)) == ["n1"]
    assert call("hosts", "check", "n2").exit_code == 5


GOOD = {"name": "version", "is_ok": True, "text": "Docker 20.10", "remedy": ""}
BAD = {"name": "clock", "is_ok": False, "text": "60 s behind", "remedy": "use NTP"}
LINES = "engines:\n  - host: n3\n    endpoint: ssh://n3\n"
CHECK = "/api/v1/hosts/check"
ENTRY = {"lines": LINES, "file": "/etc/nimbus/cluster.yaml"}


def test_an_engine_is_checked_and_its_lines_are_told(call: Call, service: FakeService) -> None:
    service.on("POST", CHECK, {"items": [GOOD], **ENTRY})
    options = ["--network", "host", "--label", "gpus=A100:2", "--rack", "r1"]
    result = call("hosts", "add", "n3", "ssh://n3", *options)
    assert service.body() == asdict(
        Engine("n3", "ssh://n3", rack="r1", labels={"gpus": "A100:2"}, network="host")
    )
    assert rows(result)[1] == "n3 version ok Docker 20.10"
    assert result.stdout.endswith(f"\n\n{LINES}")
    assert "go into /etc/nimbus/cluster.yaml" in result.stderr
    assert json.loads(call("hosts", "add", "--json", "n3", "ssh://n3").stdout)["lines"] == LINES
    service.on("POST", CHECK, {"items": [GOOD], **ENTRY, "file": ""})
    assert "c.NimbusHub.cluster_file" in call("hosts", "add", "n3", "ssh://n3").stderr
    assert "POST /services/nimbus/api/v1/hosts" not in service.calls()


def test_an_engine_is_written_into_the_cluster_file_if_nothing_is_missing(
    call: Call, service: FakeService
) -> None:
    written = "POST /services/nimbus/api/v1/hosts"
    service.on("POST", "/api/v1/hosts", ENTRY)
    service.on("POST", CHECK, {"items": [GOOD, BAD], **ENTRY})
    result = call("hosts", "add", "n3", "ssh://n3", "--write")
    assert (result.exit_code, service.calls().count(written)) == (1, 0)
    assert "n3    clock    MISSING  60 s behind   use NTP" in result.stdout
    assert "Nothing was written" in result.stderr
    service.on("POST", CHECK, {"items": [GOOD], **ENTRY})
    result = call("hosts", "add", "n3", "ssh://n3", "--write")
    assert (result.exit_code, service.calls().count(written)) == (0, 1)
    assert service.body() == asdict(Engine("n3", "ssh://n3"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["n3", "10.0.0.5:2376"], "an endpoint must be like unix:///var/run/docker.sock"),
        (["n3", "tcp://10.0.0.5:2376"], "tls must name the directory with ca.pem"),
        (["n3", "ssh://n3", "--tls", "/tls"], "only tcp endpoints use it"),
        (["n3", "ssh://n3", "--subnet", "10.0.0.0/33"], "an IPv4 network like"),
        (["n3", "ssh://n3", "--label", "fast"], "a label must be NAME=VALUE, got 'fast'"),
    ],
)
def test_what_is_no_engine_is_refused_before_anything_is_asked(
    call: Call, service: FakeService, words: list[str], why: str
) -> None:
    result = call("hosts", "add", *words)
    assert (result.exit_code, service.requests) == (2, [])
    assert why in result.stderr


def test_the_name_of_a_host_cannot_lead_elsewhere(call: Call, service: FakeService) -> None:
    assert call("hosts", "drain", "../jobs/j1").exit_code == 4
    assert service.calls() == ["POST /services/nimbus/api/v1/hosts/..%2Fjobs%2Fj1/drain"]


def test_options_of_the_list_do_not_go_with_a_command(call: Call, service: FakeService) -> None:
    result = call("hosts", "--json", "drain", "node1")
    assert (result.exit_code, service.requests) == (2, [])
    assert "hosts drain --json" in result.stderr
