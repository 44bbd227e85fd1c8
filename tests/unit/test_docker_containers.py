"""What a container is: the whole body of the request, as a value."""

from __future__ import annotations

from dataclasses import replace

from nimbus_hub.executors.docker.containers import Mount, Terms, container
from nimbus_hub.executors.docker.networks import Attachment
from nimbus_hub.executors.docker.policy import Policy
from nimbus_hub.model.replica import ReplicaSpec

SPEC = ReplicaSpec(
    id="j-1.1.worker-0",
    job_id="j-1",
    owner="ada",
    host="gpu-1",
    argv=("python", "train.py", "--lr", "0.1"),
    env={
        "NIMBUS_ROLE": "worker",
        "NIMBUS_RANK": "0",
        "SEED": "7",
        "CUDA_VISIBLE_DEVICES": "2,3",
        "NVIDIA_VISIBLE_DEVICES": "2,3",
    },
    cpus_milli=2500,
    memory_bytes=8 * 2**30,
    gpus=(2, 3),
    address="10.64.1.7",
    lease_id="l-1",
    interfaces=("GLOO_SOCKET_IFNAME",),
)
TERMS = Terms(
    image="sha256:abc",
    job=Mount("nimbus-j-1", "/nimbus/j-1", is_read_only=False),
    uid=1234,
    gid=1235,
    network="nimbus",
    address="10.64.1.7",
    mounts=(Mount("/data", "/data"), Mount("scratch", "/scratch", is_read_only=False)),
    log_bytes=100,
)


def variables(spec: ReplicaSpec, terms: Terms) -> dict[str, str]:
    """Return the environment of a container."""
    pairs = (each.partition("=") for each in container(spec, terms)["Env"])
    return {name: value for name, _, value in pairs}


def test_a_container_is_a_value() -> None:
    assert container(SPEC, TERMS) == {
        "Image": "sha256:abc",
        "Entrypoint": [],
        "Cmd": [
            *("/bin/sh", "-c", 'exec "$@" 2>&1', "sh"),
            *("python", "train.py", "--lr", "0.1"),
        ],
        "WorkingDir": "/nimbus/j-1/work",
        "User": "1234:1235",
        "Env": [
            "GLOO_SOCKET_IFNAME=eth0",
            "HOME=/nimbus/j-1/home",
            "USER=ada",
            "LANG=C.UTF-8",
            "CUDA_DEVICE_ORDER=PCI_BUS_ID",
            "TINI_KILL_PROCESS_GROUP=1",
            "NIMBUS_ROLE=worker",
            "NIMBUS_RANK=0",
            "SEED=7",
            "CUDA_VISIBLE_DEVICES=0,1",
            "NVIDIA_VISIBLE_DEVICES=2,3",
            "PYTHONPATH=/nimbus/j-1/lib",
            "NIMBUS_OUTPUT_DIR=/nimbus/j-1/output",
            "NIMBUS_LOG_DIR=/nimbus/j-1/logs",
            "NIMBUS_CHECKPOINT_DIR=/nimbus/j-1/checkpoints",
            "NIMBUS_REPLICA_ID=j-1.1.worker-0",
        ],
        "Labels": {
            "nimbus.replica": "j-1.1.worker-0",
            "nimbus.job": "j-1",
            "nimbus.owner": "ada",
            "nimbus.gang": "l-1",
            "nimbus.role": "worker",
            "nimbus.rank": "0",
        },
        "OpenStdin": False,
        "StdinOnce": False,
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NanoCpus": 2_500_000_000,
            "Memory": 8 * 2**30,
            "MemorySwap": 8 * 2**30,
            "ShmSize": 4 * 2**30,
            "PidsLimit": 16384,
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "Init": True,
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "ReadonlyRootfs": False,
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": "nimbus-j-1",
                    "Target": "/nimbus/j-1",
                    "ReadOnly": False,
                },
                {"Type": "bind", "Source": "/data", "Target": "/data", "ReadOnly": True},
                {"Type": "volume", "Source": "scratch", "Target": "/scratch", "ReadOnly": False},
            ],
            "NetworkMode": "nimbus",
            "LogConfig": {
                "Type": "local",
                "Config": {"max-size": "20", "max-file": "5", "compress": "false"},
            },
            "DeviceRequests": [
                {"Driver": "nvidia", "DeviceIDs": ["2", "3"], "Capabilities": [["gpu"]]}
            ],
        },
        "NetworkingConfig": {
            "EndpointsConfig": {"nimbus": {"IPAMConfig": {"IPv4Address": "10.64.1.7"}}}
        },
    }


def test_without_gpus_none_is_requested_and_none_is_seen() -> None:
    spec = replace(SPEC, gpus=(), env={"NVIDIA_VISIBLE_DEVICES": "all"})
    assert "DeviceRequests" not in container(spec, TERMS)["HostConfig"]
    found = variables(spec, TERMS)
    assert (found["CUDA_VISIBLE_DEVICES"], found["NVIDIA_VISIBLE_DEVICES"]) == ("", "void")


def test_a_root_that_is_read_only_has_a_tmp_in_memory() -> None:
    config = container(SPEC, replace(TERMS, is_read_only=True))["HostConfig"]
    assert config["ReadonlyRootfs"] is True
    assert config["Tmpfs"] == {"/tmp": "rw,exec,nosuid,nodev,mode=1777"}


def test_a_holder_waits_and_has_no_directory_to_be_in() -> None:
    made = container(replace(SPEC, argv=("python",), modules=("torch",)), TERMS)
    assert made["Cmd"][-2:] == ["sleep", "infinity"]
    assert made["WorkingDir"] == "/"


def test_what_is_read_is_open_once() -> None:
    made = container(replace(SPEC, has_input=True), TERMS)
    assert (made["OpenStdin"], made["StdinOnce"]) == (True, True)


def test_a_users_search_path_comes_before_ours_and_a_users_words_before_defaults() -> None:
    env = {"PYTHONPATH": "src", "HOME": "/x", "GLOO_SOCKET_IFNAME": "ib0"}
    found = variables(replace(SPEC, env=env), TERMS)
    assert found["PYTHONPATH"] == "src:/nimbus/j-1/lib"
    assert (found["HOME"], found["GLOO_SOCKET_IFNAME"]) == ("/x", "ib0")


def test_on_the_hosts_network_a_slot_has_no_address_and_no_interface_of_its_own() -> None:
    made = container(SPEC, Policy().terms(SPEC, Attachment("host"), "sha256:abc"))
    assert made["HostConfig"]["NetworkMode"] == "host"
    assert "NetworkingConfig" not in made
    assert not any(each.startswith("GLOO") for each in made["Env"])


def test_policy_says_who_somebody_is_and_what_is_mounted() -> None:
    policy = Policy(
        users=lambda owner: {"ada": (7, 8)}[owner],
        mounts=lambda owner: (Mount(f"/home/{owner}", "/home"),),
        read_only=frozenset({"default"}),
        ulimits={"memlock": -1},
        output_bytes=400,
    )
    assert policy.terms(SPEC, Attachment("lab-10-64-1-0", SPEC.address), "sha256:abc") == Terms(
        "sha256:abc",
        Mount("nimbus-j-1", "/nimbus/j-1", is_read_only=False),
        7,
        8,
        network="lab-10-64-1-0",
        address="10.64.1.7",
        mounts=(Mount("/home/ada", "/home"),),
        is_read_only=True,
        ulimits={"memlock": -1},
        log_bytes=500,
    )
