"""Sessions in containers: what a container is given, how its end is told, where engines are."""

import asyncio
import io
import tarfile
from dataclasses import replace
from types import SimpleNamespace

import pytest
import requests
from docker.errors import APIError, InvalidArgument, NotFound
from nimbus_spawner.certificates import alt_name, archive, paths_inside, user_ids
from nimbus_spawner.containers import (
    PullProgress,
    container_env,
    engine_from,
    exit_status,
    granted_host,
    labels,
    pip_env,
    pip_notice,
    why_it_ended,
)
from nimbus_spawner.docker import NimbusDockerSpawner
from nimbus_spawner.engines import said
from nimbus_spawner.host_docker import HostDockerSpawner
from nimbus_spawner.options import SessionOptions
from traitlets import TraitError

from nimbus_hub.client.resources import Slot
from nimbus_hub.errors import InvalidRequest, Unavailable
from nimbus_hub.model.engine import Engine
from tests.unit.test_spawner_values import LEASE

SLOT = Slot("session-0", "session", "gpu-1", "127.0.0.1", 1500, 2**30, (), 1000, (20000, 20001))
RUNNING = {"Running": True, "Status": "running", "ExitCode": 0}
EXITED = {"Running": False, "Status": "exited", "ExitCode": 0}


def test_a_container_has_exactly_what_was_granted():
    assert granted_host({}, replace(SLOT, gpus=(1, 3))) == {
        "init": True,
        "cap_drop": ["ALL"],
        "pids_limit": 16384,
        "shm_size": 2**29,
        "auto_remove": False,
        "memswap_limit": 2**30,
        "security_opt": ["no-new-privileges:true"],
        "device_requests": [
            {"Driver": "nvidia", "DeviceIDs": ["1", "3"], "Capabilities": [["gpu"]]}
        ],
    }


def test_a_site_says_more_of_its_containers_but_not_what_is_granted():
    given = {
        "cap_drop": [],
        "shm_size": 5,
        "security_opt": ["apparmor=mine"],
        "memswap_limit": -1,
        "auto_remove": True,
        "device_requests": [{"Count": -1, "Capabilities": [["gpu"]]}],
        "dns": ["10.0.0.1"],
    }
    assert granted_host(given, SLOT) == {
        "init": True,
        "cap_drop": [],
        "pids_limit": 16384,
        "shm_size": 5,
        "auto_remove": False,
        "memswap_limit": 2**30,
        "security_opt": ["apparmor=mine", "no-new-privileges:true"],
        "dns": ["10.0.0.1"],
    }


def test_a_container_is_found_by_lease_and_owner():
    assert labels(LEASE) == {"nimbus.lease": "l1", "nimbus.owner": "ada"}


def test_granted_devices_are_counted_from_zero_in_a_container():
    assert container_env(replace(SLOT, gpus=(1, 3))) == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert container_env(SLOT) == {"CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (RUNNING, None),
        ({**EXITED, "Status": "created"}, None),
        (EXITED, 0),
        ({**EXITED, "ExitCode": 3}, 3),
        ({**EXITED, "ExitCode": 137}, -9),
        ({**EXITED, "ExitCode": 143}, -15),
        ({**EXITED, "ExitCode": 255}, 255),
    ],
)
def test_a_container_ends_as_a_process_does(state, status):
    assert exit_status(state) == status


@pytest.mark.parametrize(
    ("state", "status", "reason"),
    [
        (EXITED, 0, "the session's server ended"),
        (EXITED, -9, "the session's server ended with exit code -9 (SIGKILL)"),
        (
            {**EXITED, "OOMKilled": True},
            -9,
            "the session's server ended with exit code -9 (SIGKILL): its memory limit was reached",
        ),
        (
            {**EXITED, "Error": "no such program"},
            127,
            "the session's server ended with exit code 127: no such program",
        ),
        (
            None,
            0,
            "the session's server ended with exit code unknown: its container was removed",
        ),
    ],
)
def test_an_end_is_told_with_what_the_engine_knows(state, status, reason):
    assert why_it_ended(state, status) == reason


def test_a_host_is_reached_where_its_engine_is():
    given = {"endpoint": "tcp://10.0.0.5:2376", "tls": "/etc/nimbus/tls"}
    assert engine_from("gpu-1", given) == Engine(
        "gpu-1", "tcp://10.0.0.5:2376", "/etc/nimbus/tls", "10.0.0.5"
    )
    assert engine_from("gpu-1", {"endpoint": "ssh://ops@gpu-1"}).address == "gpu-1"
    assert engine_from("here", {"endpoint": "unix:///run/docker.sock"}).address == "127.0.0.1"
    assert engine_from("gpu-1", {**given, "address": "10.9.0.5"}).address == "10.9.0.5"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "engine 'gpu-1' takes endpoint, tls and address: it has no endpoint"),
        (
            {"endpoint": "unix:///s", "ca": "x"},
            "engine 'gpu-1' takes endpoint, tls and address: got 'ca'",
        ),
        ({"endpoint": "http://gpu-1"}, "an endpoint must be like .*, got 'http://gpu-1'"),
        ({"endpoint": "tcp://10.0.0.5:2376"}, "tls must name the directory"),
    ],
)
def test_an_engine_that_could_not_be_used_is_refused_with_the_configuration(given, sentence):
    with pytest.raises(TraitError, match=sentence):
        NimbusDockerSpawner(engines={"gpu-1": given})


def test_each_host_has_an_engine_of_its_own_that_all_sessions_share():
    engines = {name: {"endpoint": f"unix:///run/{name}.sock"} for name in ("a", "b")}
    first, second, other = (NimbusDockerSpawner(engines=engines, host=name) for name in "aab")
    assert first.engine is second.engine
    assert first.engine is not other.engine
    assert first.executor is not other.executor


TOLD = {"endpoint": "unix:///run/told.sock", "tls": "", "address": "10.0.0.7"}


def test_a_configured_engine_wins_over_what_the_service_told():
    spawner = NimbusDockerSpawner(host="a")
    assert spawner.engine_values is None
    spawner.told_engine = TOLD
    assert spawner.engine_values == Engine("a", "unix:///run/told.sock", "", "10.0.0.7")
    spawner.engines = {"a": {"endpoint": "unix:///run/own.sock"}}
    assert spawner.engine_values == Engine("a", "unix:///run/own.sock", "", "127.0.0.1")


def test_hosts_without_an_engine_have_the_hubs_own():
    first, second = (NimbusDockerSpawner(host=name) for name in "ab")
    assert first.engine is second.engine


def test_host_and_container_are_found_again_by_a_restarted_hub():
    spawner = NimbusDockerSpawner(host="gpu-1", object_id="c1", object_name="n")
    spawner.lease_id, spawner.told_engine = "l1", TOLD
    state = spawner.get_state()
    assert state == {
        "lease_id": "l1",
        "object_id": "c1",
        "object_name": "n",
        "host": "gpu-1",
        "engine": TOLD,
    }
    again = NimbusDockerSpawner()
    again.load_state(state)
    assert again.get_state() == state
    again.clear_state()
    assert (again.host, again.object_id) == ("", "")


class Answering(HostDockerSpawner):
    """A spawner whose engine answers one thing."""

    answer: object = None

    async def docker(self, method, *args, **kwargs):
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"State": self.answer} if method == "inspect_container" else b"last words\n"


def polled(answer, object_id="c1"):
    spawner = Answering(object_id=object_id, object_name="n")
    spawner.answer = answer
    return asyncio.run(spawner.poll()), spawner


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError("refused"),
        TimeoutError(),
        APIError("500 Server Error", response=requests.Response()),
        Unavailable("host 'x' has no engine any more"),
    ],
)
def test_an_engine_that_cannot_be_asked_says_nothing_of_its_container(error):
    status, spawner = polled(error)
    assert (status, spawner.object_id) == (None, "c1")


def test_a_container_that_is_gone_has_ended():
    status, spawner = polled(NotFound("no such container"))
    assert (status, spawner.object_id, spawner.final_state) == (0, "", None)


def test_no_container_is_no_server():
    assert polled(RUNNING, object_id="")[0] == 0


def test_the_last_lines_of_a_container_that_ended_are_kept():
    status, spawner = polled({**EXITED, "ExitCode": 1})
    assert (status, spawner.last_output) == (1, "last words")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            APIError("500", explanation="no space left"),
            "the Docker engine of host gpu-1 says: no space left",
        ),
        (
            InvalidArgument("no such mode"),
            "the settings for containers on host gpu-1 do not go: no such mode",
        ),
        (
            requests.ConnectionError("refused"),
            "the Docker engine of host gpu-1 does not answer: refused",
        ),
    ],
)
def test_what_is_wrong_with_an_engine_is_said(error, sentence):
    assert said("gpu-1", error).message == sentence


def test_a_home_is_a_volume_of_its_user_until_the_site_says_otherwise():
    spawner = NimbusDockerSpawner(user=SimpleNamespace(name="Ada L"))
    assert spawner.volume_binds == {
        "nimbus-home--41da-20-4c": {"bind": "/home/jovyan", "mode": "rw"}
    }
    spawner.volumes = {"/srv/{raw_username}": "/home/user"}
    assert list(spawner.volume_binds) == ["/srv/Ada L"]


def test_on_the_hosts_own_network_no_ports_are_mapped():
    assert NimbusDockerSpawner(network_name="host").use_internal_ip
    assert not NimbusDockerSpawner().use_internal_ip


@pytest.mark.parametrize(
    ("image_env", "env", "sentence"),
    [
        (["PATH=/bin"], {"PIP_USER": "1"}, "goes into your home"),
        (["VIRTUAL_ENV=/opt/venv"], {}, "goes into this image's environment and does not stay"),
        (["PIP_PREFIX=/data"], {}, ""),
        (["PIP_USER=0"], {}, ""),
    ],
)
def test_what_pip_installs_goes_into_the_home_where_that_can_be(image_env, env, sentence):
    assert pip_env(image_env) == env
    notice = pip_notice(env, image_env)
    assert sentence in notice if sentence else notice == ""


def test_certificates_are_their_users_alone():
    packed = archive({"keyfile": b"k", "certfile": b"c", "cafile": b"a"}, 1000, 100)
    with tarfile.open(fileobj=io.BytesIO(packed)) as found:
        members = [(each.name, each.mode, each.uid, each.gid) for each in found]
    assert members == [
        ("nimbus-ssl", 0o500, 1000, 100),
        ("nimbus-ssl/key.pem", 0o400, 1000, 100),
        ("nimbus-ssl/cert.pem", 0o400, 1000, 100),
        ("nimbus-ssl/ca.pem", 0o400, 1000, 100),
    ]
    assert paths_inside()["keyfile"] == "/nimbus-ssl/key.pem"


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", (0, 0)),
        ("jovyan", (1000, 100)),
        ("jovyan:50", (1000, 50)),
        ("1000", (1000, 100)),
        ("1234:5", (1234, 5)),
        ("1234", (1234, 0)),
    ],
)
def test_a_containers_user_is_a_number_or_a_name_of_its_image(user, ids):
    passwd = "root:x:0:0::/root:/bin/sh\njovyan:x:1000:100::/home/jovyan:/bin/sh\n"
    assert user_ids(user, passwd) == ids


def test_a_certificate_names_addresses_and_hosts():
    assert alt_name("10.0.0.5") == "IP:10.0.0.5"
    assert alt_name("gpu-1") == "DNS:gpu-1"


def test_certificates_are_no_volume():
    user = SimpleNamespace(name="ada", settings={})
    spawner = NimbusDockerSpawner(user=user, internal_ssl=True, host_ip="10.0.0.5")
    assert list(spawner.volume_binds) == ["nimbus-home-ada"]
    assert not spawner.use_internal_hostname
    assert spawner.ssl_alt_names(spawner) == ["DNS:nimbus-session-ada", "IP:10.0.0.5"]
    assert NimbusDockerSpawner(internal_ssl=True, network_name="own").use_internal_hostname


def test_a_pull_is_told_in_steps_of_bytes():
    def layer(name, current):
        detail = {"current": current, "total": 10 * 2**20}
        return {"id": name, "status": "Downloading", "progressDetail": detail}

    progress = PullProgress()
    assert progress.note({"status": "Pulling from x", "id": "latest"}) == ""
    assert progress.note(layer("a", 0)) == "0 % of 10M"
    assert progress.note(layer("b", 2**20)) == "5 % of 20M"
    assert progress.note(layer("b", 2**20 + 1)) == ""
    assert progress.note({"id": "a", "status": "Download complete"}) == "55 % of 20M"
    with pytest.raises(InvalidRequest, match="manifest unknown"):
        progress.note({"error": "manifest unknown"})


def test_an_image_may_be_chosen_beside_a_sessions_own_options():
    given = {"cpus": "1", "image": "mine"}
    assert SessionOptions.parse(given, NimbusDockerSpawner.own_options).cpus == "1"
    with pytest.raises(InvalidRequest, match="there is no session option 'image'"):
        SessionOptions.parse(given)
