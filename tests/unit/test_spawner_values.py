"""Pure parts of the spawner: the request, the environment, who may be served, what is said."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest
from nimbus_spawner.ended import again_url, ended_notice, ending_notice, how_it_ended
from nimbus_spawner.grant import gang_question, gang_request, lease_env, session_request
from nimbus_spawner.local import refusal
from nimbus_spawner.options import SessionOptions, options_from_form
from nimbus_spawner.progress import ProgressLog, waiting_message

from nimbus_hub.client.choices import Environment, Options, Queue, Size
from nimbus_hub.client.requests import GangRequest, GroupRequest, WishesRequest
from nimbus_hub.client.resources import Group, Lease, Slot
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.up.account import own_name

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OPTIONS = Options(
    environments=(Environment("default", ""),),
    sizes=(Size("small", 500, 2**30, 0),),
    gpus=(),
    frameworks=(),
    queues=(Queue("default", 0, 0, False), Queue("night", -10, 0, True)),
    datacenters=("east", "west"),
    largest_cpus_milli=1000,
    largest_memory_bytes=2**31,
    largest_gpus=0,
    default_length_seconds=7200.0,
    longest_length_seconds=43200.0,
    renewal_seconds=7200.0,
    latest_end_seconds=43200.0,
)
LEASE = Lease(
    id="l1",
    kind="session",
    owner="ada",
    name="",
    state="granted",
    reason="",
    reason_code="",
    note="",
    queue="default",
    priority=0,
    is_preemptible=False,
    datacenter=None,
    inputs=(),
    outputs=(),
    expected_seconds=None,
    step_bytes=None,
    placement="",
    environment="default",
    groups=(),
    slots=(Slot("session-0", "session", "h1", "127.0.0.1", 500, 2**30, (), 1000, ()),),
    length_seconds=7200.0,
    position=None,
    starts_by=None,
    created_at=NOON,
    granted_at=NOON,
    active_at=NOON,
    expires_at=None,
    latest_end=None,
    ended_at=None,
    renewals=0,
    is_ended=False,
    can_renew=False,
    renewal_seconds=7200.0,
    parent=None,
    size="",
    cpu_seconds=0.0,
    gpu_seconds=0.0,
    opened=(),
    renewable_until=None,
    renewals_left=0,
    idle_seconds=None,
    idle_ends=False,
    idle_since=None,
    idle_warns_at=None,
    idle_ends_at=None,
    idle_reason="",
    warnings_seconds=(),
    now=NOON,
    version=1,
)


def test_a_session_without_a_choice_asks_for_the_first_size():
    assert session_request(SessionOptions(), OPTIONS, "ada", "", "10m") == {
        "kind": "session",
        "owner": "ada",
        "name": "",
        "groups": [GroupRequest("session", 1, "0.5", 2**30, 0)],
        "environment": "default",
        "duration": None,
        "wait": "10m",
        "wishes": WishesRequest(),
    }


def test_a_session_may_have_a_share_of_a_gpu_of_some_models():
    chosen = SessionOptions.parse({"size": "custom", "cpus": 2, "gpus": "A100,V100:0.5"})
    groups = session_request(chosen, OPTIONS, "ada", "", "10m")["groups"]
    assert groups == [GroupRequest("session", 1, "2", "2G", "A100,V100:0.5")]


def test_a_session_waits_where_its_user_wants_and_is_put_there():
    chosen = SessionOptions(queue="night", datacenter="west")
    wishes = session_request(chosen, OPTIONS, "ada", "", "10m")["wishes"]
    assert wishes == WishesRequest(queue="night", datacenter="west")


def test_without_a_usual_queue_the_first_is_meant():
    options = replace(OPTIONS, queues=OPTIONS.queues[1:])
    assert session_request(SessionOptions(), options, "ada", "", "10m")["wishes"].queue == "night"


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (SessionOptions(size="big"), "there is no size 'big'; there are: small"),
        (
            SessionOptions(environment="tf"),
            "there is no environment 'tf'; there are: default",
        ),
        (SessionOptions(queue="vip"), "there is no queue 'vip'; there are: default, night"),
        (
            SessionOptions(datacenter="mars"),
            "there is no datacenter 'mars'; there are: east, west",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(chosen, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        session_request(chosen, OPTIONS, "ada", "", "10m")


def test_the_gang_of_a_session_is_asked_for_with_its_lease_and_environment():
    chosen = SessionOptions.parse({"debug_framework": "pytorch", "debug_workers": 2})
    lease = replace(LEASE, environment="torch")
    workers = GroupRequest("worker", 2, gpus="0")
    assert gang_request(chosen, lease) == GangRequest(
        framework="pytorch", groups=(workers,), environment="torch", session="l1"
    )
    with_ps = SessionOptions.parse({"debug_ps": 1, "debug_gpus": "A100:1"})
    assert gang_request(with_ps, lease).groups == (
        GroupRequest("worker", 1, gpus="A100:1"),
        GroupRequest("ps", 1),
    )
    assert gang_request(SessionOptions(), lease) is None


def test_the_gang_of_a_session_is_planned_before_the_session_is_started():
    chosen = SessionOptions.parse({"debug_framework": "pytorch", "debug_ps": 1})
    wishes = WishesRequest(queue="night")
    asked = gang_question(chosen, wishes)
    assert (asked.framework, asked.environment, asked.wishes) == ("pytorch", "default", wishes)
    assert asked.groups == gang_request(chosen, LEASE).groups
    assert gang_question(SessionOptions(), wishes) is None


def test_a_framework_that_there_is_not_is_refused_before_anything_is_asked_for():
    chosen = SessionOptions.parse({"debug_framework": "mxnet"})
    with pytest.raises(InvalidRequest, match="there is no framework 'mxnet'; there are: script"):
        session_request(chosen, replace(OPTIONS, frameworks=("script",)), "ada", "", "10m")


@pytest.mark.parametrize("wait", ["2m", "90s", "10m", "600"])
def test_a_session_waits_as_long_as_its_user_wants(wait):
    chosen = SessionOptions(wait=wait)
    assert session_request(chosen, OPTIONS, "ada", "", "10m")["wait"] == wait


@pytest.mark.parametrize("wait", ["11m", "601", "soon", "0s", "-1", "nan"])
def test_a_wait_over_the_patience_or_none_at_all_is_refused_with_the_bound(wait):
    with pytest.raises(InvalidRequest) as caught:
        session_request(SessionOptions(wait=wait), OPTIONS, "ada", "", "10m")
    assert caught.value.message == (
        f"wait must be a duration like 90s or 10m and at most 10m, got {wait!r}"
    )


def test_a_session_without_gpus_sees_none():
    assert lease_env(LEASE, "http://hub/services/nimbus/") == {
        "NIMBUS_API_URL": "http://hub/services/nimbus",
        "NIMBUS_LEASE_ID": "l1",
        "NIMBUS_ENVIRONMENT": "default",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "",
        "NVIDIA_VISIBLE_DEVICES": "void",
        "CPU_LIMIT": "0.5",
        "MEM_LIMIT": str(2**30),
    }


def test_a_session_sees_the_gpus_it_was_granted():
    lease = replace(LEASE, slots=(replace(LEASE.slots[0], gpus=(1, 3)),))
    assert lease_env(lease, "u")["CUDA_VISIBLE_DEVICES"] == "1,3"


@pytest.mark.parametrize(
    ("user", "is_root", "said"),
    [
        ("ada", False, ""),
        ("bob", False, "this hub runs as 'Ada' and can start sessions of that account only"),
        (own_name(), True, ""),
        ("no-such-account", True, "there is no system account 'no-such-account'"),
    ],
)
def test_only_accounts_that_can_be_kept_apart_are_served(user, is_root, said):
    refused = refusal(user, "Ada", is_root=is_root)
    assert refused.startswith(said)
    assert bool(refused) == bool(said)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (0, "the session's server ended"),
        (1, "the session's server ended with exit code 1"),
        (-9, "the session's server ended with exit code -9 (SIGKILL)"),
    ],
)
def test_the_end_of_a_server_is_told_by_its_exit_code(status, reason):
    assert how_it_ended(status) == reason


@pytest.mark.parametrize(
    ("state", "reason", "is_told"),
    [
        ("expired", "its lease of 2h ran out", True),
        ("lost", "its host does not answer", True),
        ("released", how_it_ended(-9), True),
        ("released", "stopped by ada or an administrator", False),
        ("released", how_it_ended(0), False),
        ("cancelled", "the start was cancelled", False),
    ],
)
def test_a_user_is_told_of_an_end_they_did_not_ask_for(state, reason, is_told):
    ended_at = NOON + timedelta(hours=2)
    lease = replace(LEASE, state=state, reason=reason, ended_at=ended_at, size="small")
    assert bool(ended_notice(lease, "/hub/", "/user/ada/")) is is_told


def test_the_notice_says_when_and_why_and_is_escaped():
    lease = replace(LEASE, state="expired", reason="<b>.", ended_at=NOON, size="small")
    assert ended_notice(lease, "/hub/", "/user/ada/").startswith(
        '<div class="alert alert-warning nimbus-session-ended" role="status">'
        'Your session ended at <time class="nimbus-ended" datetime="2026-11-23T12:00:00+00:00">'
        '12:00 UTC</time>: &lt;b&gt;.<p class="mt-2 mb-0"><a class="btn btn-primary nimbus-again" '
        'href="/hub/spawn/ada?opt-size=small&amp;'
    )


def test_the_notice_says_what_was_open():
    opened = ("work/a.ipynb", "<b>.py", *(f"{number}.txt" for number in range(9)))
    lease = replace(LEASE, state="expired", ended_at=NOON, size="small", opened=opened)
    notice = ended_notice(lease, "/hub/", "/user/ada/")
    assert "Open were: work/a.ipynb, &lt;b&gt;.py, 0.txt, 1.txt, " in notice
    assert "5.txt and 3 more." in notice


def test_a_click_starts_the_same_session_again_and_leads_to_the_lab():
    sized = replace(LEASE, size="1 GPU", datacenter="west")
    form, _, query = again_url(sized, "/hub/", "/user/ada/").partition("?")
    assert form == "/hub/spawn/ada"
    assert dict(parse_qsl(query)) == {
        "opt-size": "1 GPU",
        "opt-environment": "default",
        "opt-duration": "7200",
        "opt-queue": "default",
        "opt-datacenter": "west",
        "next": "/user/ada/lab",
    }


def test_a_session_without_a_size_is_asked_for_again_by_its_amounts():
    group = Group("session", 1, 1500, 2**31, 1, 500, ("A100", "V100"), "pack")
    named = replace(LEASE, name="work", owner="a b@x", groups=(group,))
    form, _, query = again_url(named, "/hub/", "/user/a%20b@x/work/").partition("?")
    assert form == "/hub/spawn/a%20b@x/work"
    options = {
        name.removeprefix("opt-"): value
        for name, value in parse_qsl(query)
        if name.startswith("opt-")
    }
    (wanted,) = session_request(
        SessionOptions.parse(options_from_form({name: [value] for name, value in options.items()})),
        OPTIONS,
        "ada",
        "work",
        "10m",
    )["groups"]
    assert wanted == GroupRequest("session", 1, "1.5", str(2**31), "A100,V100:0.5")


def test_a_session_that_is_being_stopped_says_why_and_the_page_looks_again():
    notice = ending_notice("its <lease> ran out.")
    assert "Your session is being stopped: its &lt;lease&gt; ran out ...</div>" in notice
    assert "location.reload()" in notice


def test_a_waiting_lease_says_position_reason_and_latest_start():
    lease = replace(
        LEASE, position=2, reason="1 GPU wanted, 0 free", starts_by=NOON + timedelta(minutes=90)
    )
    assert waiting_message(lease) == (
        "Waiting, position 2: 1 GPU wanted, 0 free; starts at the latest 13:30 UTC, in 1h30m."
    )
    moved = replace(lease, note="bob's renewal moved its start from 12:50 to 13:30 UTC")
    assert waiting_message(moved).endswith(
        "in 1h30m; bob's renewal moved its start from 12:50 to 13:30 UTC."
    )
    assert waiting_message(replace(LEASE, position=None)) == "Waiting."


async def test_progress_is_told_once_to_every_reader():
    log = ProgressLog()
    log.tell(5, "asking")
    log.tell(5, "asking")
    log.tell(50, "granted")
    log.close()
    told = [{"progress": 5, "message": "asking"}, {"progress": 50, "message": "granted"}]
    assert [event async for event in log.follow()] == told
    assert [event async for event in log.follow()] == told
