"""What the local executor decides and computes before anything runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.accounts import Account, Accounts
from nimbus_hub.executors.commands import ON_PATH, supervisor_spec
from nimbus_hub.executors.limits import ReplicaLimits
from nimbus_hub.model.replica import ReplicaSpec

ROOT = Account("root", 0, 0, Path("/root"))
ADA = Account("ada", 1000, 1000, Path("/home/ada"), "/bin/bash", (1000, 44))
PROGRAMS = Path("/opt/torch/bin")
JOB = Path("/home/ada/nimbus/job-1")


def lookup(name: str) -> Account:
    return {"ada": ADA}[name]


def test_a_persons_service_serves_that_person_alone() -> None:
    accounts = Accounts(ADA, lookup)
    assert accounts.find("ada") is ADA
    with pytest.raises(InvalidRequest) as caught:
        accounts.find("eve")
    assert caught.value.message == (
        "the local executor runs everything under the account ada, so it cannot serve eve; "
        "run the service as root for system users"
    )


def test_a_service_of_root_serves_system_users() -> None:
    accounts = Accounts(ROOT, lookup)
    assert accounts.find("ada") is ADA
    assert accounts.find("root") is ROOT
    with pytest.raises(InvalidRequest, match="there is no system account 'eve'"):
        accounts.find("eve")


def test_the_accounts_of_this_machine_are_found() -> None:
    assert Account.named("daemon").name == "daemon"
    assert Account.current().home.is_absolute()
    with pytest.raises(KeyError):
        Account.named("no-such-account")


def replica_spec(env: dict[str, str]) -> ReplicaSpec:
    return ReplicaSpec("r1", "job-1", "ada", "local", ("python", "train.py"), env)


def test_what_the_supervisor_is_told_is_whole() -> None:
    limits = ReplicaLimits((Path("/cg/nimbus-r1"),), Path("/cg/nimbus-r1/memory.events"))
    own = {"HOME": "/data/ada", "PATH": "/mine", "PYTHONPATH": "/lib/mine"}
    spec = replace(
        replica_spec({"NIMBUS_RANK": "0", "NCCL_SOCKET_IFNAME": "eth7", **own}),
        address="127.0.0.3",
        interfaces=("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"),
    )
    assert supervisor_spec(spec, ROOT, ADA, PROGRAMS, JOB, limits) == {
        "id": "r1",
        "argv": ["python", "train.py"],
        "env": {
            "HOME": "/data/ada",
            "USER": "ada",
            "LOGNAME": "ada",
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "TMPDIR": "/tmp",
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "NIMBUS_RANK": "0",
            "NCCL_SOCKET_IFNAME": "eth7",
            "GLOO_SOCKET_IFNAME": "lo",
            "PYTHONPATH": f"/lib/mine:{ON_PATH}",
            "PATH": "/opt/torch/bin:/mine",
            "NIMBUS_OUTPUT_DIR": "/home/ada/nimbus/job-1/output",
            "NIMBUS_LOG_DIR": "/home/ada/nimbus/job-1/logs",
            "NIMBUS_CHECKPOINT_DIR": "/home/ada/nimbus/job-1/checkpoints",
            "NIMBUS_REPLICA_ID": "r1",
        },
        "cwd": "/home/ada/nimbus/job-1/work",
        "directory": "/home/ada/nimbus/job-1",
        "top": "/home/ada/nimbus",
        "account": {"uid": 1000, "gid": 1000, "groups": [1000, 44]},
        "cgroups": ["/cg/nimbus-r1"],
        "memory_events": "/cg/nimbus-r1/memory.events",
        "memory_bytes": 2**30,
        "gpus": [],
        "has_input": False,
        "modules": [],
    }


def test_the_services_own_account_is_not_taken_again() -> None:
    told = supervisor_spec(replica_spec({}), ADA, ADA, PROGRAMS, JOB, ReplicaLimits())
    assert (told["account"], told["cgroups"], told["memory_events"]) == (None, [], None)
