"""What the embedded hub keeps: secrets, addresses, records of processes."""

import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from traitlets.config.loader import PyFileConfigLoader

from nimbus_hub.errors import Unavailable
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.store.store import Store
from nimbus_hub.up import node
from nimbus_hub.up.hub import hub_config
from nimbus_hub.up.login import OwnerAuthenticator
from nimbus_hub.up.processes import ProcessRecord
from nimbus_hub.up.proxy import forget_foreign_pid
from nimbus_hub.up.secrets import check_password, hash_password, kept_token, new_password
from nimbus_hub.up.state import Addresses, State
from nimbus_hub.up.stop import stop_all

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LEASE = Lease(
    "l-1", LeaseKind.SESSION, "ada", "", (SlotGroup("session", 1, 500, 2**30, 0),),
    timedelta(hours=2), NOON,
)  # fmt: skip


@pytest.fixture
def state(tmp_path):
    state = State(tmp_path / "state")
    state.create()
    return state


def _mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_password_is_known_by_its_hash_alone():
    password = new_password()
    stored = hash_password(password)
    assert password not in stored
    assert check_password(password, stored + "\n")
    assert not check_password(password + "x", stored)


@pytest.mark.parametrize("stored", ["", "x", "scrypt$$", "scrypt$!$!", "plain$c2FsdA==$aGFzaA=="])
def test_a_broken_hash_lets_nobody_in(stored):
    assert not check_password("", stored)


def test_a_hash_differs_by_its_salt():
    assert hash_password("a") != hash_password("a")
    assert hash_password("a", b"salt") == hash_password("a", b"salt")


def test_passwords_are_long_and_different():
    made = {new_password() for _ in range(50)}
    assert len(made) == 50
    assert {len(password) for password in made} == {19}


def test_a_token_is_made_once_for_its_owner_alone(state):
    token = kept_token(state.secrets, "proxy_token")
    assert kept_token(state.secrets, "proxy_token") == token
    assert len(token) == 64
    assert _mode(state.secrets / "proxy_token") == 0o600
    assert _mode(state.secrets) == 0o700


def test_logs_and_database_are_for_their_owner_alone(state):
    assert [_mode(path) for path in (state.hub_log, state.database)] == [0o600, 0o600]


def test_addresses_are_found_again(state):
    assert state.addresses() is None
    addresses = Addresses("127.0.0.1", 8000, 1, 2, 3)
    state.keep_addresses(addresses)
    assert state.addresses() == addresses


@pytest.mark.parametrize(
    ("ip", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
    ],
)
def test_the_address_for_a_browser_can_be_reached_from_this_machine(ip, url):
    assert replace(Addresses("", 8000, 1, 2, 3), ip=ip).url == url


def test_a_process_is_named_by_pid_and_start_time(state):
    record = ProcessRecord.of(os.getpid())
    record.write(state.hub_record)
    assert ProcessRecord.read(state.hub_record) == record
    assert record.is_alive
    assert not replace(record, started=record.started - 10).is_alive
    assert not replace(record, started=record.started - 10).send(0)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x", "started": 1}'])
def test_a_broken_record_is_no_process(state, text):
    state.hub_record.write_text(text)
    assert ProcessRecord.read(state.hub_record) is None


def test_a_pid_file_that_names_another_program_is_forgotten(state):
    state.proxy_pid.write_text(str(os.getpid()))
    forget_foreign_pid(state)
    assert not state.proxy_pid.exists()


def test_node_is_found_on_path_or_in_the_wheel(tmp_path, monkeypatch):
    for name in ("node", "npm"):
        (tmp_path / name).touch(mode=0o755)
    assert node.find_node(str(tmp_path)) == node.Node(tmp_path / "node", (str(tmp_path / "npm"),))
    wheel = node.find_node(str(tmp_path / "empty"))
    assert wheel.npm[0] == str(wheel.node)
    monkeypatch.setattr(node, "WHEEL", "no_such_module")
    with pytest.raises(Unavailable, match=r"install node and npm, or the wheel"):
        node.find_node(str(tmp_path / "empty"))


async def test_only_the_right_password_lets_its_user_in(state):
    file = state.secrets / "password"
    login = OwnerAuthenticator(password_file=str(file), longest_delay=0.0)
    assert await login.authenticate(None, {"username": "ada", "password": ""}) is None
    file.write_text(hash_password("right"))
    assert await login.authenticate(None, {"username": "ada", "password": "wrong"}) is None
    assert await login.authenticate(None, {"username": "ada", "password": "right"}) == "ada"


@pytest.fixture
def load(state, tmp_path, monkeypatch):
    """Load the hub's configuration with a person's own on top of it."""
    state.keep_addresses(Addresses("127.0.0.1", 8000, 1, 2, 3))
    monkeypatch.setenv("NIMBUS_HUB_STATE", str(state.directory))
    monkeypatch.setenv("NIMBUS_HUB_CONFIG", str(tmp_path / "own.py"))

    def load(text):
        (tmp_path / "own.py").write_text(text)
        return PyFileConfigLoader(str(hub_config())).load_config()

    return load


def test_a_hub_of_one_account_refuses_other_names_at_its_start(load, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    with pytest.raises(SystemExit, match="of that account only, not of 'ada'"):
        load("c.Authenticator.allowed_users = {'ada'}")


def test_sessions_run_in_the_environments_of_jobs(load):
    torch = {"bin": "/opt/torch/bin", "image": "torch:2.13"}
    found = load(f"c.NimbusHub.environments = {{'torch': {torch}, 'xgb': {{'image': 'xgb:3'}}}}")
    assert found.NimbusLocalSpawner.environment_bins == {"torch": "/opt/torch/bin"}
    assert found.NimbusDockerSpawner.environment_images == {"torch": "torch:2.13", "xgb": "xgb:3"}
    nothing = load("")
    assert "environment_bins" not in nothing.NimbusLocalSpawner
    assert "environment_images" not in nothing.NimbusDockerSpawner


def test_stop_all_ends_what_is_in_the_database_of_the_persons_own_configuration(state, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(f"c.NimbusHub.database_url = 'sqlite:///{tmp_path}/elsewhere.sqlite'\n")
    state.keep_addresses(Addresses("127.0.0.1", 8000, 1, 2, 3))
    state.keep_config(own)
    store = Store.open(f"sqlite:///{tmp_path}/elsewhere.sqlite")
    store.add(LEASE, now=NOON)
    stop_all(state, lambda line: None)
    ended = store.lease(LEASE.id)
    store.close()
    assert ended.state.is_end
    assert ended.reason == "everything was ended with nimbus-hub stop-all"
