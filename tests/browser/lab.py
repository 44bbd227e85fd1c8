"""What a person does in the browser, as methods: log in, start a session, run a cell.

Everything waits for what a person would wait for, never for a time to pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Locator, Page, WebSocket, expect

__all__ = ["Lab", "Notebook", "write_notebook"]

SLOW_MILLISECONDS = 60_000
"""The bound of every wait; a loaded machine of two cores needs a part of it."""

_CLICKS = 5


class Lab:
    """A hub and its JupyterLab in a page."""

    def __init__(self, page: Page, url: str, user: str) -> None:
        self.page = page
        self.url = url
        self.user = user
        self._frames: dict[str, int] = {}
        page.on("websocket", self._watch)

    def log_in(self, password: str) -> None:
        self.page.goto(f"{self.url}/hub/login")
        self.page.get_by_label("Username").fill(self.user)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()

    def open_form(self) -> None:
        """Open the form a session is chosen with."""
        self.page.goto(f"{self.url}/hub/spawn")
        expect(self.page.locator("fieldset.nimbus-sizes")).to_be_visible()

    def choose(self, size: str, duration: str) -> None:
        self.page.locator(f"input[name=size][value={size}]").check()
        self.page.get_by_label("Duration").fill(duration)

    def start(self) -> None:
        """Start the session as chosen and wait until JupyterLab shows its lease."""
        self.page.get_by_role("button", name="Start").click()
        self.page.wait_for_url("**/lab**", timeout=SLOW_MILLISECONDS)
        self.wait_until_shown()

    def wait_until_shown(self) -> None:
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")
        expect(self.time_left).to_be_visible(timeout=SLOW_MILLISECONDS)

    @property
    def time_left(self) -> Locator:
        return self.page.locator(".jp-nimbus-Lease-time")

    def open(self, name: str) -> Notebook:
        """Open a notebook alone in the page, with a kernel that listens."""
        self._frames.clear()
        self.page.goto(f"{self.url}/user/{self.user}/lab/workspaces/auto-t/tree/{name}?reset")
        self.wait_until_shown()
        self._wait_for_kernel()
        self.notebook = Notebook(self.page)
        return self.notebook

    def move_output_aside(self, number: int) -> None:
        """Show the output of a cell to the right of the notebook instead of below the cell."""
        self.page.keyboard.press("Control+b")
        self.notebook.output(number).get_by_role("link").click(button="right")
        self.page.get_by_text("Create New View for Cell Output").click()
        window = self.page.locator(".lm-DockPanel").first.bounding_box()
        assert window is not None
        middle = window["y"] + window["height"] / 2
        tab = self.page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text="Output View")
        self._drag(tab, window["x"] + window["width"] - 15, middle)
        handle = self.page.locator(".lm-DockPanel-handle[data-orientation=horizontal]")
        handle = handle.and_(self.page.locator(":not(.lm-mod-hidden)"))
        self._drag(handle, window["x"] + 0.45 * window["width"], middle)

    def _drag(self, what: Locator, x: float, y: float) -> None:
        start = what.bounding_box()
        assert start is not None
        mouse = self.page.mouse
        mouse.move(
            start["x"] + min(20, start["width"] / 2), start["y"] + min(10, start["height"] / 2)
        )
        mouse.down()
        mouse.move(x, y, steps=10)
        mouse.up()

    def _wait_for_kernel(self) -> None:
        # The indicator says idle before the socket is connected, and what is asked then
        # is lost: an answer of the kernel is the sign.
        frames = self._frames
        deadline = SLOW_MILLISECONDS
        while not any(frames.values()):
            assert deadline > 0, "the kernel did not answer"
            self.page.wait_for_timeout(50)
            deadline -= 50
        expect(
            self.page.locator(".jp-NotebookPanel .jp-Notebook-ExecutionIndicator")
        ).to_have_attribute("data-status", "idle", timeout=SLOW_MILLISECONDS)

    def _watch(self, socket: WebSocket) -> None:
        if "/channels" in socket.url:
            self._frames[socket.url] = 0
            socket.on("framereceived", lambda _: self._count(socket.url))

    def _count(self, url: str) -> None:
        self._frames[url] = self._frames.get(url, 0) + 1


class Notebook:
    """The notebook that is open."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def cell(self, number: int) -> Locator:
        return self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{number}"]')

    def output(self, number: int) -> Locator:
        return self.cell(number).locator(".jp-Cell-outputArea")

    def edit(self, number: int) -> None:
        """Put the cursor into a cell."""
        editor = self.cell(number).locator(".cm-content")
        for _ in range(_CLICKS):
            editor.scroll_into_view_if_needed()
            editor.click(position={"x": 5, "y": 5})
            # An output above that grows meanwhile moves the cell away from the mouse.
            if editor.evaluate("each => each.contains(document.activeElement)"):
                return
        raise AssertionError(f"the cursor does not go into cell {number}")

    def type(self, number: int, text: str) -> None:
        self.edit(number)
        self.page.keyboard.type(text)

    def run(self, number: int) -> Locator:
        """Run a cell with Shift+Enter; return its output, which may still be to come."""
        self.edit(number)
        self.page.keyboard.press("Shift+Enter")
        return self.output(number)

    def result(self, number: int) -> str:
        """Run a cell, wait until it has ended and return what it shows as text."""
        shown = self.run(number).locator(".jp-OutputArea-output")
        prompt = self.cell(number).locator(".jp-InputPrompt")
        expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=3 * SLOW_MILLISECONDS)
        return "\n".join(shown.all_inner_texts()).strip()


def write_notebook(path: Path, cells: Sequence[str]) -> None:
    """Write a notebook with these cells of code."""
    made: list[dict[str, object]] = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "execution_count": None,
            "metadata": {},
            "outputs": [],
            "source": source,
        }
        for number, source in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    content = {
        "cells": made,
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.write_text(json.dumps(content))
