"""The whole way in a browser: log in, train, look, renew, and lose the session in time.

The tests are one story, told in order: each goes on where the one before it ended. They
start processes and wait for them, since what they check is what a person sees.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import FrameLocator, Page, Response, expect

from tests.browser.lab import Lab, write_notebook
from tests.hub.conftest import ROOT, HubProcess

pytestmark = pytest.mark.browser

Picture = Callable[[str], None]
EXAMPLES = ROOT / "docs" / "examples"
LONG_MILLISECONDS = 120_000
"""The bound for a job of a few seconds, or the end of a lease of two minutes."""

WRONG = {
    "%nimbus_run --wrokers 2 digits.py": "no option --wrokers, did you mean --workers?",
    "%nimbus_run absent.py": "script 'absent.py' does not exist",
    "%nimbus_run --workers 0 digits.py": "workers must be at least 1, got 0",
    "%nimbus_run --memory lots digits.py": "memory must be a size like 4G or 512M, got 'lots'",
    "%nimbus_run --gpus 64 digits.py": "64 GPUs per worker asked for",
    "%nimbus_logs j-nothere": "there is no job j-nothere",
}


def test_the_generated_password_opens_the_form(
    hub: HubProcess, lab: Lab, page: Page, picture: Picture
) -> None:
    lab.log_in(hub.password)
    lab.open_form()
    expect(page.locator("input[name=size][value=small]")).to_be_checked()
    expect(page.get_by_text("Your session ended")).to_have_count(0)
    picture("spawn-form")


def test_a_session_starts_under_the_lease_that_was_chosen(
    hub: HubProcess, lab: Lab, picture: Picture
) -> None:
    _furnish(hub.home)
    lab.choose("small", "10m")
    lab.start()
    assert re.fullmatch(r"Lease (10m|9:\d\d)", lab.time_left.inner_text())
    picture("lab")


def test_renew_moves_the_end(lab: Lab, page: Page, picture: Picture) -> None:
    lab.open("others.ipynb").edit(0)  # leaving the cell changes the status bar
    with page.expect_response(_is_renewal) as renewal:
        page.get_by_role("button", name="Renew").click()
    assert renewal.value.status == 200
    expect(lab.time_left).to_have_text(re.compile(r"Lease (2h 0m|1h 59m)"))
    expect(page.get_by_text("The lease ends at")).to_be_visible()
    picture("renewed")


def test_a_cell_trains_on_two_workers_and_its_curve_is_shown(
    lab: Lab, page: Page, picture: Picture
) -> None:
    notebook = lab.open("first_run.ipynb")
    view = notebook.run(1)
    notebook.run(3)
    _expect_curve(page.frame_locator(".jp-Notebook iframe"), least=0.9)
    picture("curve-of-running-job")
    expect(view).to_contain_text("succeeded", timeout=LONG_MILLISECONDS)
    told = notebook.result(5)
    assert "succeeded" in told
    assert _accuracy(told) >= 0.95
    picture("trained")


def test_one_worker_learns_the_same(lab: Lab) -> None:
    notebook = lab.open("others.ipynb")
    two = notebook.result(0)
    one = notebook.result(1)
    assert _accuracy(one) >= 0.95
    assert abs(_accuracy(one) - _accuracy(two)) <= 0.02


def test_wrong_input_gets_one_sentence_and_starts_nothing(lab: Lab, picture: Picture) -> None:
    notebook = lab.open("wrong.ipynb")
    before = notebook.result(0)
    told = [notebook.result(number + 1) for number in range(len(WRONG))]
    for sentence, line in zip(WRONG.values(), told, strict=True):
        assert sentence in line
        assert "Traceback" not in line
        assert "\n" not in line
    assert notebook.result(len(WRONG) + 1) == before
    picture("wrong-input")


def test_a_running_job_is_watched_and_stopped(lab: Lab, page: Page, picture: Picture) -> None:
    notebook = lab.open("training.ipynb")
    view = notebook.run(0)
    expect(view).to_contain_text("epoch 9", timeout=LONG_MILLISECONDS)
    notebook.run(1)
    expect(notebook.output(1).locator("iframe")).to_be_visible(timeout=LONG_MILLISECONDS)
    lab.move_output_aside(1)
    curve = page.frame_locator(".jp-LinkedOutputView iframe")
    _expect_curve(curve, least=0.9)
    curve.locator("button.reload-button").click()
    _expect_curve(curve, least=0.95)
    notebook.cell(0).scroll_into_view_if_needed()
    picture("session")
    # Closed and opened again: the kernel holds the view, and it goes on.
    notebook.cell(0).click()
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-current.jp-mod-dirty")).to_have_count(0)
    page.reload()
    lab.wait_until_shown()
    expect(view).to_contain_text("running", timeout=LONG_MILLISECONDS)
    view.get_by_role("button", name="Stop").click()
    expect(view).to_contain_text("Stopped from the notebook", timeout=LONG_MILLISECONDS)
    expect(view.get_by_role("button", name="Stop")).to_be_disabled()
    picture("stopped")


def test_a_session_stopped_by_its_user_ends_without_a_word(
    hub: HubProcess, lab: Lab, page: Page
) -> None:
    page.goto(f"{hub.url}/hub/home")
    page.get_by_role("button", name="Stop My Server").click()
    expect(page.get_by_role("button", name="Start My Server")).to_be_visible()
    lab.open_form()
    expect(page.get_by_text("Your session ended")).to_have_count(0)


def test_the_last_minute_is_announced(
    hub: HubProcess, lab: Lab, page: Page, picture: Picture
) -> None:
    lab.choose("small", "2m")
    lab.start()
    lab.open("notes.ipynb")
    title = page.get_by_role("dialog").get_by_text("The lease ends in 1 minute")
    expect(title).to_be_visible(timeout=LONG_MILLISECONDS)
    expect(page.locator(".Toastify__toast")).to_contain_text(
        "unsaved variables of kernels are lost"
    )
    picture("lease-warning")
    page.get_by_role("button", name="Let it end").click()


def test_at_the_end_documents_are_saved_and_the_session_is_stopped(
    hub: HubProcess, lab: Lab, page: Page, picture: Picture
) -> None:
    lab.notebook.type(0, "# written in the last minute\n")
    assert "last minute" not in (hub.home / "notes.ipynb").read_text()
    ended = page.get_by_role("dialog")
    expect(ended).to_contain_text("The lease of this session has ended", timeout=LONG_MILLISECONDS)
    expect(ended).to_contain_text("All documents are saved: notes.ipynb.")
    picture("lease-end")
    assert "last minute" in (hub.home / "notes.ipynb").read_text()
    page.get_by_role("button", name="Start a new session").click()
    page.wait_for_url("**/hub/home?next=**")
    # Until the server is stopped, the page says so and looks again by itself.
    notice = page.locator(".nimbus-session-ended")
    expect(notice).to_be_visible(timeout=LONG_MILLISECONDS)
    assert re.search(r"ended at \d\d?:\d\d.*lease ran out", notice.inner_text())
    expect(page.get_by_role("button", name="Start My Server")).to_be_visible()
    picture("lease-ended")


def test_the_next_log_in_says_why_and_when(
    hub: HubProcess, lab: Lab, page: Page, picture: Picture
) -> None:
    page.get_by_role("button", name="Logout").click()
    lab.log_in(hub.password)
    lab.open_form()
    expect(page.get_by_text("Your session ended at")).to_be_visible()
    picture("form-after-end")


def _furnish(home: Path) -> None:
    """Write the notebooks of the story, and have no automatic save help the last one."""
    for name in ("first_run.ipynb", "digits.py"):
        shutil.copy(EXAMPLES / name, home)
    slow = (EXAMPLES / "digits.py").read_text().replace("lr=0.003", "lr=0.0002")
    (home / "train.py").write_text(
        slow.replace("range(30)", "range(2000)").replace("of 30", "of 2000")
    )
    write_notebook(
        home / "others.ipynb",
        [
            "%nimbus_logs digits --replica worker-0 --tail 2",
            "%nimbus_run --name single --framework pytorch --follow digits.py",
        ],
    )
    write_notebook(home / "wrong.ipynb", ["%nimbus_jobs --all", *WRONG, "%nimbus_jobs --all"])
    write_notebook(
        home / "training.ipynb",
        [
            "%nimbus_run --framework pytorch --workers 2 train.py",
            "%nimbus_tensorboard --height 740",
            "",
        ],
    )
    write_notebook(home / "notes.ipynb", ["1 + 1"])
    settings = home / ".jupyter/lab/user-settings/@jupyterlab/docmanager-extension"
    settings.mkdir(parents=True)
    (settings / "plugin.jupyterlab-settings").write_text(json.dumps({"autosave": False}))


def _is_renewal(answer: Response) -> bool:
    path = urlsplit(answer.url).path
    return answer.request.method == "POST" and path.endswith("/nimbus/lease/renew")


def _accuracy(text: str) -> float:
    found = re.findall(r"accuracy=(\d\.\d+)", text)
    assert found, f"no accuracy in: {text}"
    return float(found[-1])


def _expect_curve(frame: FrameLocator, least: float) -> None:
    """Wait until TensorBoard has drawn the accuracy, up to such a value at its last step."""
    card = frame.locator("scalar-card-component").filter(has_text="accuracy")
    expect(card.locator("line-chart canvas, line-chart path").first).to_be_visible(
        timeout=LONG_MILLISECONDS
    )
    expect(card.locator("tb-data-table")).to_contain_text(
        re.compile(rf"0\.9[{int(least * 100) % 10}-9]"), timeout=LONG_MILLISECONDS
    )
