"""The hub as people meet it: log-in, a session under a lease, its end, restarts."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import sys

import httpx
import psutil
import pytest

from nimbus_hub.up.processes import ProcessRecord
from tests.hub.conftest import HubProcess, User, wait_for

pytestmark = pytest.mark.hub


ENDING = """\
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
"""A process whose first thread is over, and of which another goes on."""


def _session(hub: HubProcess) -> ProcessRecord:
    record = ProcessRecord.read(next(hub.state.sessions.glob("*.json")))
    assert record is not None
    return record


def test_a_process_is_alive_while_threads_of_it_are() -> None:
    # Of a proxy that is killed they hold the port for a moment more.
    words = [sys.executable, "-c", ENDING]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ending = psutil.Process(process.pid)
        wait_for(lambda: ending.status() == psutil.STATUS_ZOMBIE, 10, "its first thread is over")
        record = ProcessRecord.of(process.pid)
        assert record.is_alive
        process.kill()
        wait_for(lambda: not record.is_alive, 10, "over")


def test_a_wrong_password_opens_nothing(hub: HubProcess) -> None:
    stranger = User(hub)
    with stranger.http:
        assert stranger.log_in("wrong").status_code == 403
        assert "login" in str(stranger.http.get("/hub/spawn").url)


def test_secrets_are_for_their_owner_alone_and_in_no_log(hub: HubProcess, user: User) -> None:
    log = hub.state.hub_log.read_bytes()
    for path in hub.state.secrets.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes().strip() not in log
    assert hub.password.encode() not in log


def test_the_form_shows_sizes_environments_and_gpus(user: User) -> None:
    page = user.http.get("/hub/spawn").text
    assert '<fieldset class="nimbus-sizes' in page
    assert '<option value="default">' in page
    assert '<p class="nimbus-gpus">' in page


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"memory": "lots"}, "memory must be a size like 4G or 512M, got 'lots'"),
        ({"environment": "none"}, "there is no environment 'none'"),
        ({"gpus": 1000}, "1000"),
    ],
)
def test_a_wrong_choice_is_refused_with_a_sentence_and_holds_nothing(
    user: User, options: dict[str, object], sentence: str
) -> None:
    assert sentence in user.refusal(**options)
    assert user.leases("live") == []


def test_a_session_holds_a_lease_from_start_to_stop(hub: HubProcess, user: User) -> None:
    messages = [event["message"] for event in user.start(duration="10m")]
    assert messages[0] == "Server requested"
    assert any(message.startswith("Granted on") for message in messages)
    (lease,) = user.leases("live")
    assert (lease["state"], lease["length_seconds"]) == ("active", 600.0)
    assert user.http.get(f"/user/{user.name}/lab").status_code == 200
    user.stop()
    assert user.leases("live") == []
    assert user.leases()[0]["state"] == "released"


def test_a_session_may_hold_a_debug_gang_which_ends_with_it(user: User) -> None:
    messages = [event["message"] for event in user.start(debug_workers=2)]
    (session,), (gang,) = user.leases("live"), user.leases("live", "debug")
    assert (gang["parent"], gang["groups"][0]["count"]) == (session["id"], 2)
    assert f"Asked for debug gang {gang['id']}; %nimbus_debug tells." in messages
    user.stop()
    wait_for(lambda: user.leases("live", "debug") == [], 30, "gang ended")


def test_a_session_whose_debug_gang_is_refused_starts_and_says_so(user: User) -> None:
    messages = [event["message"] for event in user.start(debug_gpus=1000)]
    assert any(message.startswith("No debug gang: ") for message in messages)
    assert len(user.leases("live")) == 1
    assert user.leases("live", "debug") == []


def test_the_page_shows_what_is_held_and_what_ended(hub: HubProcess, user: User) -> None:
    user.start(duration="10m")
    (lease,) = user.leases("live")
    page = user.http.get("/services/nimbus/")
    assert page.status_code == 200
    held, ended = page.text.split("<h2>Ended</h2>")
    assert lease["id"] in held
    user.stop()
    held, ended = user.http.get("/services/nimbus/").text.split("<h2>Ended</h2>")
    assert lease["id"] in ended
    with httpx.Client(base_url=hub.url, trust_env=False) as stranger:
        answer = stranger.get("/services/nimbus/")
    assert "/hub/api/oauth2/authorize" in answer.headers["location"]


def test_a_session_that_dies_releases_its_lease_and_the_user_is_told(
    hub: HubProcess, user: User
) -> None:
    user.start()
    _session(hub).send(signal.SIGKILL)
    wait_for(lambda: not user.is_running, 5, "death noticed")
    wait_for(lambda: not user.leases("live"), 5, "lease released")
    for page in ("/hub/home", "/hub/spawn", f"/user/{user.name}/lab"):
        text = user.http.get(page).text
        assert re.search(r"Your session ended at .*exit code -9 \(SIGKILL\)", text), page


def test_sessions_are_forked_warm_and_without_a_fork_server_they_start_all_the_same(
    hub: HubProcess, user: User
) -> None:
    def fork_server() -> psutil.Process:
        """Return what the session's server was forked from, or the hub."""
        return psutil.Process(psutil.Process(_session(hub).pid).ppid())

    def is_forked() -> bool:
        user.start()
        if "nimbus_spawner.forkserver" in fork_server().cmdline():
            return True
        user.stop()
        return False

    wait_for(is_forked, 60, "session forked")
    server = fork_server()
    server.kill()
    assert user.http.get(f"/user/{user.name}/lab").status_code == 200
    user.stop()
    user.start()
    assert "nimbus_spawner.forkserver" not in fork_server().cmdline()


def test_a_session_outlives_ctrl_c_and_is_found_again(hub: HubProcess, user: User) -> None:
    user.start()
    session = _session(hub)
    (lease,) = user.leases("live")
    hub.interrupt()
    assert session.is_alive
    assert hub.start() < 10
    assert user.is_running
    assert [one["id"] for one in user.leases("live")] == [lease["id"]]
    assert user.http.get(f"/user/{user.name}/lab").status_code == 200


def test_a_session_outlives_a_killed_hub_and_its_death_is_noticed_after(
    hub: HubProcess, user: User
) -> None:
    user.start()
    session = _session(hub)
    hub.kill()
    assert session.is_alive
    hub.start()
    assert user.is_running
    session.send(signal.SIGKILL)
    wait_for(lambda: not user.is_running, 5, "death noticed")
    wait_for(lambda: not user.leases("live"), 5, "lease released")


def test_a_killed_service_is_back_in_seconds(hub: HubProcess, user: User) -> None:
    user.start()
    (lease,) = user.leases("live")
    service = ProcessRecord.read(hub.state.service_record)
    assert service is not None
    service.send(signal.SIGKILL)
    health = f"{hub.url}/services/nimbus/health"
    wait_for(lambda: httpx.get(health).status_code == 200, 10, "service back")
    assert [one["id"] for one in user.leases("live")] == [lease["id"]]


def test_a_second_hub_on_the_same_state_names_the_first(hub: HubProcess) -> None:
    ran = subprocess.run(hub.command("up"), capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert f"is already running at {hub.url}" in ran.stderr


def test_a_port_in_use_is_named(hub: HubProcess, tmp_path) -> None:
    other = HubProcess(tmp_path, hub.port)
    ran = subprocess.run(
        other.command("up", "--port", str(hub.port)), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert f"port {hub.port} on 127.0.0.1 is in use" in ran.stderr
    assert f"PORT={hub.port + 1}" in ran.stderr
