"""The end of a session waits for its documents and for its user's script, and for no more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from nimbus_labextension.reclaim import Reclaim
from nimbus_labextension.script import Script

from nimbus_hub.client import Client, GroupRequest, Lease
from nimbus_hub.errors import Conflict, Ended, InvalidRequest
from tests.service.conftest import Service
from tests.service.waiting import until

NOTEBOOK = (GroupRequest("notebook", 1, 1, "2G"),)
DOCUMENTS = ("work/train.ipynb", "notes.md")
RAN_OUT = "its lease ran out and was not renewed"
SAVED = f"{RAN_OUT}; its documents were saved"
SCRIPT = """#!/bin/sh
sleep 2
echo "$NIMBUS_REASON" > told
echo "$NIMBUS_ENDS_AT" > end
exit 4
"""


@pytest.fixture
def hub(service: Service) -> Client:
    return service.client("admin-token")


@pytest.fixture
def ada(service: Service) -> Client:
    return service.client("ada-token")


@pytest.fixture
def lease(service: Service, hub: Client) -> Lease:
    """A session's lease of two minutes."""
    asked = hub.request_lease(owner="ada", groups=NOTEBOOK, duration="2m")
    until(lambda: hub.lease(asked.id), lambda seen: seen.state == "granted")
    service.servers.alive.add(("ada", ""))
    return hub.activate(asked.id)


@pytest.fixture
def session(tmp_path: Path) -> Callable[[Client, Lease, str], threading.Thread]:
    """Start what a session's server does at its end, with a script in the user's home."""

    def start(client: Client, lease: Lease, text: str) -> threading.Thread:
        script = Script(tmp_path)
        script.path.parent.mkdir()
        script.path.write_text(text)
        script.path.chmod(0o700)
        thread = threading.Thread(target=Reclaim(lease.id, client, script).watch)
        thread.start()
        return thread

    return start


def let_it_end(service: Service, client: Client, lease: Lease) -> Lease:
    service.skip(timedelta(minutes=2, seconds=1))
    return until(lambda: client.lease(lease.id), lambda seen: seen.state == "expiring")


def ended(client: Client, lease: Lease) -> Lease:
    return until(lambda: client.lease(lease.id), lambda seen: seen.is_ended)


def test_what_was_open_is_known_after_the_end(service: Service, ada: Client, lease: Lease) -> None:
    let_it_end(service, ada, lease)
    ada.saved(lease.id, DOCUMENTS)
    over = ended(ada, lease)
    assert (over.opened, over.reason) == (DOCUMENTS, SAVED)


def test_documents_that_are_saved_do_not_cut_a_script_off(
    service: Service, ada: Client, lease: Lease
) -> None:
    let_it_end(service, ada, lease)
    told = ada.saving(lease.id, 60)
    assert told.note == "before-reclaim script runs, at most 1m"
    ada.saved(lease.id)
    service.skip(timedelta(seconds=50))
    assert ada.lease(lease.id, after=told.version + 1, timeout=1.5).state == "expiring"
    assert service.servers.stopping == []
    ada.script_ended(lease.id, "exit code 1, see ~/.nimbus/before-reclaim.log")
    over = ended(ada, lease)
    assert over.reason == (
        f"{SAVED}; before-reclaim: exit code 1, see ~/.nimbus/before-reclaim.log"
    )
    assert over.note == ""


def test_a_script_that_has_ended_does_not_cut_the_documents_off(
    service: Service, ada: Client, lease: Lease
) -> None:
    let_it_end(service, ada, lease)
    ada.saving(lease.id, 60)
    ended_script = ada.script_ended(lease.id, "exit code 0")
    assert ended_script.state == "expiring"
    ada.saved(lease.id)
    assert ended(ada, lease).state == "expired"


def test_a_script_is_waited_for_a_minute_and_a_bit_however_often_it_is_told(
    service: Service, ada: Client, hub: Client, lease: Lease
) -> None:
    let_it_end(service, ada, lease)
    ada.saving(lease.id, 60)
    service.skip(timedelta(seconds=50))
    ada.saving(lease.id, 60)
    service.skip(timedelta(seconds=12))
    assert ended(hub, lease).reason == RAN_OUT


def test_a_service_that_restarts_waits_to_hear_of_the_script_again(
    service: Service, hub: Client, ada: Client, lease: Lease
) -> None:
    let_it_end(service, ada, lease)
    ada.saving(lease.id, 60)
    ada.saved(lease.id)
    service.stop()
    service.start()
    version = ada.saving(lease.id, 60).version
    service.skip(timedelta(seconds=30))
    assert ada.lease(lease.id, after=version, timeout=1.5).state == "expiring"
    ada.script_ended(lease.id, "exit code 0")
    assert ended(hub, lease).reason == f"{SAVED}; before-reclaim: exit code 0"


def test_a_script_is_for_the_end_alone_and_bounded(
    service: Service, ada: Client, lease: Lease
) -> None:
    with pytest.raises(Conflict, match="is not ending; its script runs when it is"):
        ada.saving(lease.id, 60)
    with pytest.raises(InvalidRequest, match="less than or equal to 60, got '61'"):
        ada.saving(lease.id, 61)
    let_it_end(service, ada, lease)
    ada.saved(lease.id)
    ended(ada, lease)
    with pytest.raises(Ended):
        ada.saving(lease.id, 60)


@pytest.mark.parametrize("has_browser", [True, False], ids=["with a browser", "without"])
def test_the_script_of_the_user_runs_to_its_end_before_the_server_is_stopped(
    service: Service,
    ada: Client,
    lease: Lease,
    session: Callable[[Client, Lease, str], threading.Thread],
    tmp_path: Path,
    has_browser: bool,
) -> None:
    text = (
        '#!/bin/sh\nsleep 2\necho "$NIMBUS_REASON" > told\necho "$NIMBUS_ENDS_AT" > end\nexit 4\n'
    )
    thread = session(service.client("ada-token"), lease, text)
    let_it_end(service, ada, lease)
    until(lambda: ada.lease(lease.id).note, lambda note: "script runs" in note)
    if has_browser:
        ada.saved(lease.id)
    over = ended(ada, lease)
    thread.join(10)
    assert (tmp_path / "told").read_text() == f"{RAN_OUT}\n"
    ends_at = datetime.fromisoformat((tmp_path / "end").read_text().strip())
    assert timedelta(seconds=50) < ends_at - over.ended_at < timedelta(seconds=60)
    said = "; its documents were saved" if has_browser else ""
    outcome = "before-reclaim: exit code 4, see ~/.nimbus/before-reclaim.log"
    assert over.reason == f"{RAN_OUT}{said}; {outcome}"


@pytest.mark.parametrize("how", ["given back in JupyterLab", "idle for 30m"])
def test_it_runs_at_every_end_that_is_asked_for(
    service: Service,
    ada: Client,
    lease: Lease,
    session: Callable[[Client, Lease, str], threading.Thread],
    tmp_path: Path,
    how: str,
) -> None:
    thread = session(service.client("ada-token"), lease, "#!/bin/sh\ntouch ran\n")
    ada.release(lease.id, reason=how)
    assert ended(ada, lease).reason == f"{how}; before-reclaim: exit code 0"
    thread.join(10)
    assert (tmp_path / "ran").exists()


def test_a_session_without_a_script_is_not_waited_for(
    service: Service, ada: Client, lease: Lease, tmp_path: Path
) -> None:
    thread = threading.Thread(
        target=Reclaim(lease.id, service.client("ada-token"), Script(tmp_path)).watch
    )
    thread.start()
    let_it_end(service, ada, lease)
    thread.join(10)
    ada.saved(lease.id)
    assert ended(ada, lease).reason == SAVED


def test_without_a_browser_what_the_server_said_is_open_is_known_after_the_end(
    service: Service, hub: Client, ada: Client, lease: Lease
) -> None:
    report = {"idle_seconds": {}, "open_documents": list(DOCUMENTS)}
    ada.report_activity(lease.id, report)
    reason = "the session's server ended with exit code -9 (SIGKILL)"
    hub.release(lease.id, reason, is_stopped=True)
    assert ended(ada, lease).opened == DOCUMENTS
