"""Debug mode in a browser: hold a gang, run, edit, run, break, look around, give it back.

One story told in order, as in test_session.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.lab import Lab, Notebook, write_notebook
from tests.hub.conftest import HubProcess

pytestmark = pytest.mark.browser

Picture = Callable[[str], None]
LONG_MILLISECONDS = 120_000

STEP = """\
import os
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
ones = torch.ones(1)
dist.all_reduce(ones)
print("sum", ones.item() * {factor}, "seen by rank", os.environ["RANK"])
dist.destroy_process_group()
"""
BREAK = """\
import os

rank = int(os.environ["RANK"])
secret = 41 + rank
if rank == 0:
    raise ValueError("it breaks here")
import time
time.sleep(600)
"""
CELLS = (
    "%nimbus_debug --framework pytorch --workers 2 --cpus 1 --memory 1G",
    "%nimbus_run step.py",
    "%%writefile step.py\n" + STEP.format(factor=10),
    "%nimbus_run step.py",
    "%nimbus_run --pdb break.py",
    "%nimbus_debug renew 2h",
    "%nimbus_debug",
    "%nimbus_debug stop",
    "%nimbus_jobs --all",
)
HOLD, RUN, EDIT, AGAIN, PDB, RENEW, STATUS, STOP, JOBS = range(len(CELLS))


@pytest.fixture(scope="module")
def notebook(hub: HubProcess, lab: Lab) -> Notebook:
    """The notebook of the story, in a session of its own."""
    _furnish(hub.home)
    lab.log_in(hub.password)
    lab.open_form()
    lab.choose("small", "30m")
    lab.start()
    return lab.open("debug.ipynb")


def test_a_gang_is_held_and_warm(notebook: Notebook, picture: Picture) -> None:
    told = notebook.result(HOLD)
    assert re.search(r"debug gang l-\w+ ready", told), told
    assert "2 workers" in told
    picture("debug-held")


def test_a_run_on_it_shows_what_all_replicas_say(notebook: Notebook) -> None:
    told = notebook.result(RUN)
    assert "worker-0 | sum 2.0 seen by rank 0" in told
    assert "worker-1 | sum 2.0 seen by rank 1" in told


def test_what_was_edited_runs_next(notebook: Notebook, picture: Picture) -> None:
    notebook.result(EDIT)
    told = notebook.result(AGAIN)
    assert "sum 20.0 seen by rank 1" in told
    picture("debug-again")


def test_a_run_that_breaks_is_looked_into(notebook: Notebook, page: Page, picture: Picture) -> None:
    output = notebook.run(PDB)
    expect(output).to_contain_text("ValueError: it breaks here", timeout=LONG_MILLISECONDS)
    _type(page, "p secret")
    expect(output).to_contain_text("41", timeout=LONG_MILLISECONDS)
    picture("debug-pdb")
    _type(page, "q")
    prompt = notebook.cell(PDB).locator(".jp-InputPrompt")
    expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=LONG_MILLISECONDS)
    expect(output).to_contain_text("worker-0")
    assert "break.py" in output.inner_text()
    assert "nimbus_hub/replica" not in output.inner_text()


def test_the_gang_is_renewed_and_says_until_when(notebook: Notebook) -> None:
    assert "until" in notebook.result(RENEW)
    told = notebook.result(STATUS)
    assert "ready" in told
    assert "can be renewed until" in told


def test_it_is_given_back_and_nothing_of_it_is_left(notebook: Notebook, picture: Picture) -> None:
    assert "given back" in notebook.result(STOP)
    told = notebook.result(JOBS)
    assert "running" not in told
    picture("debug-given-back")


def _type(page: Page, line: str) -> None:
    """Answer the question below the cell."""
    box = page.locator(".jp-Stdin-input:not([disabled])").last
    box.wait_for(timeout=LONG_MILLISECONDS)
    box.fill(line)
    box.press("Enter")


def _furnish(home: Path) -> None:
    (home / "step.py").write_text(STEP.format(factor=1))
    (home / "break.py").write_text(BREAK)
    write_notebook(home / "debug.ipynb", CELLS)
    settings = home / ".jupyter/lab/user-settings/@jupyterlab/docmanager-extension"
    settings.mkdir(parents=True)
    (settings / "plugin.jupyterlab-settings").write_text(json.dumps({"autosave": False}))
