"""What the embedded hub keeps: secrets, addresses, records of processes."""

import os
import stat
from dataclasses import replace

import pytest

from nimbus_hub.errors import Unavailable
from nimbus_hub.up import node
from nimbus_hub.up.login import OwnerAuthenticator
from nimbus_hub.up.processes import ProcessRecord
from nimbus_hub.up.proxy import forget_foreign_pid
from nimbus_hub.up.secrets import check_password, hash_password, kept_token, new_password
from nimbus_hub.up.state import Addresses, State


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
