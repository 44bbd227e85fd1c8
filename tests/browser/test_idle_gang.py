"""A debug gang that does nothing, in a browser: the user is told, keeps it, gives it back.

One story told in order, as in test_session.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.lab import Lab, Notebook, write_notebook
from tests.hub.conftest import HubProcess, User, wait_for

pytestmark = pytest.mark.browser

Picture = Callable[[str], None]
LONG_MILLISECONDS = 120_000
"""The page asks every 30 seconds."""

CLUSTER = """\
leases:
  - kind: debug
    idle: 5s
"""
CELLS = ("%nimbus_debug --workers 2 --cpus 0.5 --memory 256M", "%nimbus_debug")
HOLD, STATUS = range(len(CELLS))


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> str:
    cluster = tmp_path_factory.mktemp("cluster") / "cluster.yaml"
    cluster.write_text(CLUSTER)
    return f"c = get_config()\nc.NimbusHub.cluster_file = {str(cluster)!r}\n"


@pytest.fixture(scope="module")
def notebook(hub: HubProcess, lab: Lab) -> Notebook:
    """The notebook of the story, in a session of its own."""
    write_notebook(hub.home / "idle.ipynb", CELLS)
    lab.log_in(hub.password)
    lab.open_form()
    lab.choose("small", "30m")
    lab.start()
    return lab.open("idle.ipynb")


@pytest.fixture
def notice(page: Page) -> Locator:
    """What the user is told of the gang."""
    return page.locator(".Toastify__toast", has_text="Your debug gang")


@pytest.fixture
def user(hub: HubProcess) -> Iterator[User]:
    """Who looks at the leases without the page."""
    user = User(hub)
    with user.http:
        user.log_in()
        yield user


def test_a_gang_that_does_nothing_is_told_of(
    notebook: Notebook, notice: Locator, picture: Picture
) -> None:
    assert "ready" in notebook.result(HOLD)
    expect(notice).to_have_text(
        re.compile(r"Your debug gang \(2 workers\) did nothing for \d+ (second|minute)s?\."),
        timeout=LONG_MILLISECONDS,
    )
    for name in ("Keep", "Give back"):
        expect(notice.get_by_role("button", name=name)).to_be_visible()
    picture("gang-idle")


def test_one_that_is_kept_stays_and_is_told_of_when_it_is_idle_again(
    notice: Locator, user: User
) -> None:
    notice.get_by_role("button", name="Keep").click()
    expect(notice).to_have_count(0)
    (lease,) = user.leases("live", "debug")
    assert lease["state"] == "active"
    expect(notice).to_be_visible(timeout=LONG_MILLISECONDS)


def test_one_that_is_given_back_ends(
    notebook: Notebook, notice: Locator, user: User, picture: Picture
) -> None:
    notice.get_by_role("button", name="Give back").click()
    expect(notice).to_have_count(0)
    wait_for(lambda: not user.leases("live", "debug"), 30, "gang given back")
    (lease,) = user.leases("ended", "debug")
    assert (lease["state"], lease["reason"]) == ("released", "given back in JupyterLab")
    assert len(user.leases("live")) == 1
    picture("gang-idle-given-back")
