"""A real hub and a real Chromium; what went wrong is kept in ``artifacts/browser``."""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, Response, ViewportSize, sync_playwright

from tests.browser.lab import SLOW_MILLISECONDS, Lab
from tests.hub.conftest import (
    ROOT,
    HubProcess,
    User,
    configuration,
    free_port,
    proxy_cache,
    running_hub,
    wait_for,
)

__all__ = ["configuration", "proxy_cache"]

ARTIFACTS = ROOT / "artifacts" / "browser"
_WINDOW: ViewportSize = {"width": 1400, "height": 900}
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_FAILED = pytest.StashKey[str]()
_TEXT = 3000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and item.parent is not None:
        item.parent.stash.setdefault(_FAILED, item.name)
        item.stash[_FAILED] = item.name
        page = item.funcargs.get("page") if isinstance(item, pytest.Function) else None
        if isinstance(page, Page) and report.when == "call":
            report.sections.append(("text of the page", page.inner_text("body")[-_TEXT:]))
    return report


@pytest.fixture(scope="module")
def hub(
    tmp_path_factory: pytest.TempPathFactory, proxy_cache: Path, configuration: str
) -> Iterator[HubProcess]:
    """A hub that is ready; whatever it started is gone afterwards."""
    hub = HubProcess(tmp_path_factory.mktemp("browser"), free_port())
    try:
        with running_hub(hub, proxy_cache, configuration):
            yield hub
    finally:
        _remove_jobs(hub)
        wait_for(lambda: not _processes_of(hub), 10, "all processes of the hub gone")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """One window of the browser for the whole story."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=_FLAGS)
        page = browser.new_page(viewport=_WINDOW)
        page.set_default_timeout(SLOW_MILLISECONDS)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def console(page: Page) -> list[str]:
    """What the browser's console said, and the requests that were refused."""
    lines: list[str] = []
    page.on("console", lambda message: lines.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: lines.append(f"uncaught: {error}"))

    def note(answer: Response) -> None:
        if answer.status >= 400:
            lines.append(f"{answer.status} {answer.request.method} {answer.url}")

    page.on("response", note)
    return lines


@pytest.fixture(scope="module")
def lab(hub: HubProcess, page: Page, console: list[str]) -> Lab:
    return Lab(page, hub.url, User(hub).name)


@pytest.fixture
def picture(page: Page) -> Callable[[str], None]:
    """Keep a picture of the window."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)

    def take(name: str) -> None:
        page.screenshot(path=ARTIFACTS / f"{name}.png", animations="disabled")

    return take


@pytest.fixture(autouse=True)
def step(
    request: pytest.FixtureRequest, page: Page, hub: HubProcess, console: list[str]
) -> Iterator[None]:
    """Each test goes on where the one before it ended; if that failed, so does this one."""
    broken = request.node.parent.stash.get(_FAILED, None)
    if broken is not None:
        pytest.fail(f"not tried, since {broken} failed", pytrace=False)
    yield
    if request.node.stash.get(_FAILED, None) is not None:
        _keep_evidence(ARTIFACTS / request.node.name, hub, page, console)


def _keep_evidence(directory: Path, hub: HubProcess, page: Page, console: list[str]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    page.screenshot(path=directory / "page.png")
    (directory / "page.html").write_text(page.content())
    (directory / "console.txt").write_text("\n".join([page.url, *console]))
    for log in (hub.state.hub_log, *hub.state.sessions.glob("*.log")):
        shutil.copy(log, directory)


def _chromium() -> str:
    named = os.environ.get("CHROMIUM", "")
    found = shutil.which(named or "chromium") or shutil.which("chromium-browser")
    if found is None or (named and shutil.which(named) is None):
        pytest.fail(
            f"there is no program {named or 'chromium'}: apt-get install chromium, or name one "
            "with CHROMIUM=path",
            pytrace=False,
        )
    return found


def _remove_jobs(hub: HubProcess) -> None:
    """Remove the files of the hub's jobs: they are in the account's home, whatever HOME says."""
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    with closing(sqlite3.connect(hub.state.directory / "nimbus.sqlite")) as database:
        for (job,) in database.execute("select id from jobs"):
            shutil.rmtree(home / "nimbus" / job, ignore_errors=True)


def _processes_of(hub: HubProcess) -> list[psutil.Process]:
    """Return what runs with the hub's directories or its address in the environment."""
    marks = (str(hub.directory), f"{hub.url}/")
    found = []
    for process in psutil.process_iter():
        try:
            values = process.environ().values()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if any(mark in value for mark in marks for value in values):
            found.append(process)
    return found
