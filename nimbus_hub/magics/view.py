"""The live view of a job: widgets that a watch keeps up to date.

The widgets live in the kernel: a browser that is closed and opened again finds them as
they are now. When the job ends, plain HTML takes their place, so that the saved notebook
still reads well when the kernel is gone.
"""

from __future__ import annotations

from threading import Lock, Timer
from typing import Any
from uuid import uuid4

import ipywidgets as widgets

from nimbus_hub.client import Client, resources
from nimbus_hub.errors import NimbusError
from nimbus_hub.magics.render import as_html, as_text, failed_first, log_html, summary_html
from nimbus_hub.magics.screen import show, show_instead
from nimbus_hub.magics.tails import Tails
from nimbus_hub.magics.watch import Watch

__all__ = ["View", "static_bundle"]

_REDRAW_SECONDS = 0.2
# The newest line stays in sight, and whoever scrolls up stays where they are.
_LOG_LAYOUT = {
    "max_height": "20em",
    "overflow": "auto",
    "display": "flex",
    "flex_flow": "column-reverse",
}


def static_bundle(job: resources.Job, tails: Tails) -> dict[str, Any]:
    """Return the job as a MIME bundle that needs no kernel."""
    return {"text/plain": as_text(job, tails), "text/html": as_html(job, tails)}


class View:
    """A job's widgets, shown as often as wanted, all alike."""

    def __init__(self, client: Client, job: resources.Job) -> None:
        """Make the widgets and begin to follow the job."""
        self._client = client
        self._lock = Lock()
        self._timer: Timer | None = None
        self._displays: list[str] = []
        self._logs: dict[str, Any] = {}
        self._summary = widgets.HTML()
        self._tabs = widgets.Tab()
        self._stop = widgets.Button(description="Stop", icon="stop", tooltip="Stop the job")
        self._stop.on_click(self._on_stop)
        self.widget = widgets.VBox([self._summary, self._tabs, self._stop])
        self.watch = Watch(client, job, self._changed)
        self._redraw()
        self.watch.start()

    def show(self) -> None:
        """Show the view here, too."""
        if self.watch.is_over:
            show(static_bundle(self.watch.job, self.watch.tails))
            return
        identity = uuid4().hex
        self._displays.append(identity)
        show(self.bundle(), identity)

    def bundle(self) -> dict[str, Any]:
        """Return the widgets, and the text and HTML for readers that have none."""
        live = self.widget._repr_mimebundle_()
        return {**live, **static_bundle(self.watch.job, self.watch.tails)}

    def _changed(self) -> None:
        """Redraw soon: a fast program must not flood the browser."""
        if self.watch.is_over:
            self._finish()
            return
        with self._lock:
            if self._timer is None:
                self._timer = Timer(_REDRAW_SECONDS, self._redraw)
                self._timer.daemon = True
                self._timer.start()

    def _redraw(self) -> None:
        with self._lock:
            self._timer = None
            job = self.watch.job
            self._summary.value = summary_html(job, self.watch.trouble)
            self._draw_tabs(job)
            for name, log in self._logs.items():
                log.value = log_html(self.watch.tails.text(name))

    def _draw_tabs(self, job: resources.Job) -> None:
        names = [replica.name for replica in failed_first(job)]
        if names == list(self._logs):
            return
        self._logs = {name: self._logs.get(name) or widgets.HTML() for name in names}
        self._tabs.children = [
            widgets.Box([log], layout=widgets.Layout(**_LOG_LAYOUT)) for log in self._logs.values()
        ]
        self._tabs.titles = names
        self._tabs.selected_index = 0 if names else None

    def _finish(self) -> None:
        """Put what is left in the place of the widgets."""
        self._redraw()
        bundle = static_bundle(self.watch.job, self.watch.tails)
        if self.watch.trouble:
            bundle["text/plain"] += f"\n{self.watch.trouble}"
            bundle["text/html"] += summary_html(self.watch.job, self.watch.trouble)
        for identity in self._displays:
            show_instead(bundle, identity)
        self._stop.disabled = True

    def _on_stop(self, button: Any) -> None:
        button.disabled = True
        try:
            self._client.stop(self.watch.job.id, reason="Stopped from the notebook.")
        except NimbusError as error:
            button.disabled = False
            self.watch.trouble = error.message
            self._redraw()
