"""The form a session is chosen with: a pure function from what may be asked for to HTML.

A choice that no host could ever hold is greyed out with the reason; one that fits but not
now says that it will wait. Everything that comes from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from html import escape

from nimbus_hub.client.choices import Environment, Options, Queue, Size
from nimbus_hub.client.hosts import Host
from nimbus_hub.model.quantities import (
    format_cpus,
    format_duration,
    format_memory,
    parse_duration,
)
from nimbus_spawner.options import CUSTOM

__all__ = ["render_form", "unavailable_form"]


def render_form(choices: Options, hosts: Iterable[Host], patience: str, notice: str = "") -> str:
    """Return the form.

    ``patience`` is how long a start waits at most, ``notice`` HTML that stands on top.
    """
    return "\n".join(
        (
            notice,
            '<fieldset class="nimbus-sizes mb-3"><legend>Size</legend>',
            *_sizes(choices, tuple(hosts)),
            _custom(choices),
            "</fieldset>",
            _gpus(choices),
            _environments(choices),
            _duration(choices),
            _wait(patience),
            *_places(choices),
            _gang(choices),
        )
    ).lstrip()


def unavailable_form(sentence: str, notice: str = "") -> str:
    """Return what stands in the form's place while the service does not answer."""
    return "\n".join(
        (
            notice,
            '<div class="alert alert-danger" role="alert">'
            f"{escape(sentence)} Try again in a minute.</div>",
        )
    ).lstrip()


def _sizes(choices: Options, hosts: tuple[Host, ...]) -> list[str]:
    lines = []
    is_chosen = False
    for size in choices.sizes:
        never = _never(choices, size)
        waits = "" if never or not hosts else _waits(hosts, size)
        checked = "" if never or is_chosen else " checked"
        is_chosen = is_chosen or not never
        note = f' <em class="text-muted">{escape(never or waits)}</em>' if never or waits else ""
        lines.append(
            f'<div class="form-check"><label class="form-check-label">'
            f'<input class="form-check-input" type="radio" name="size" value="{escape(size.name)}"'
            f"{' disabled' if never else ''}{checked}> <strong>{escape(size.name)}</strong> "
            f"{_amounts(size)}{note}</label></div>"
        )
    return lines


def _amounts(size: Size) -> str:
    parts = [f"{format_cpus(size.cpus_milli)} CPU", f"{format_memory(size.memory_bytes)} memory"]
    if size.gpus:
        parts.append(f"{size.gpus} GPU")
    return escape(", ".join(parts))


def _never(choices: Options, size: Size) -> str:
    """Return why no host could ever hold a size, or nothing."""
    largest = (
        ("CPUs", size.cpus_milli, choices.largest_cpus_milli, format_cpus),
        ("memory", size.memory_bytes, choices.largest_memory_bytes, format_memory),
        ("GPUs", size.gpus, choices.largest_gpus, str),
    )
    for name, wanted, most, write in largest:
        if wanted > most:
            return f"(impossible: the largest host has {write(most)} {name})"
    return ""


def _waits(hosts: tuple[Host, ...], size: Size) -> str:
    fits = any(
        host.state == "ready"
        and size.cpus_milli <= host.cpus_free_milli
        and size.memory_bytes <= host.memory_free_bytes
        and size.gpus <= sum(gpu.lease_id is None for gpu in host.gpus)
        for host in hosts
    )
    return "" if fits else "(will wait: not free on any host now)"


def _custom(choices: Options) -> str:
    gpus = (
        '<label>GPUs <input class="form-control" name="gpus" size="14" '
        f'placeholder="0 to {choices.largest_gpus}" '
        'title="a number, a share of one like 0.5, or of some models A100,V100:2"></label>'
        if choices.largest_gpus
        else '<label class="text-muted">GPUs <input class="form-control" size="8" disabled '
        'placeholder="none"></label>'
    )
    return (
        f'<div class="form-check"><label class="form-check-label">'
        f'<input class="form-check-input" type="radio" name="size" value="{CUSTOM}"> '
        "<strong>custom</strong></label>\n"
        '<span class="d-flex gap-3 nimbus-custom" '
        "oninput=\"document.querySelector('input[name=size][value=custom]').checked = true\">"
        f'<label>CPUs <input class="form-control" name="cpus" inputmode="decimal" size="8" '
        f'placeholder="up to {format_cpus(choices.largest_cpus_milli)}"></label>'
        f'<label>Memory <input class="form-control" name="memory" size="8" '
        f'placeholder="up to {format_memory(choices.largest_memory_bytes)}"></label>'
        f"{gpus}</span></div>"
    )


def _gpus(choices: Options) -> str:
    counts = [f"{escape(gpu.model)}: {gpu.free} of {gpu.total} free" for gpu in choices.gpus] or [
        "none on these hosts"
    ]
    return f'<p class="nimbus-gpus">GPUs: {"; ".join(counts)}</p>'


def _environments(choices: Options) -> str:
    options = "".join(
        f'<option value="{escape(one.name)}">{escape(_described(one))}</option>'
        for one in choices.environments
    )
    return (
        '<label class="d-block mb-3">Environment '
        f'<select class="form-select" name="environment">{options}</select></label>'
    )


def _described(environment: Environment) -> str:
    return ": ".join(part for part in (environment.name, environment.description) if part)


def _duration(choices: Options) -> str:
    usual = format_duration(timedelta(seconds=choices.default_length_seconds))
    longest = format_duration(timedelta(seconds=choices.longest_length_seconds))
    return (
        '<label class="d-block mb-3">Duration '
        f'<input class="form-control" name="duration" value="{usual}" list="nimbus-durations" '
        'pattern="[0-9smhdSMHD. ]+" title="like 90m, 2h or 1d"></label>'
        '<datalist id="nimbus-durations"><option value="30m"><option value="1h">'
        f'<option value="2h"><option value="{longest}"></datalist>'
        f'<p class="text-muted">At most {longest}; a session can be renewed while it runs.</p>'
    )


def _wait(patience: str) -> str:
    longest = format_duration(parse_duration(patience))
    return (
        '<label class="d-block mb-3">Wait at most '
        f'<input class="form-control" name="wait" placeholder="{longest}" '
        'pattern="[0-9smhdSMHD. ]+" title="like 90s or 10m"></label>'
        f'<p class="text-muted">For a free place: {longest} unless you choose less.</p>'
    )


def _places(choices: Options) -> list[str]:
    """Return the choice of queue and datacenter, each where there is one to make."""
    lines = []
    if len(choices.queues) > 1:
        queues = "".join(
            f'<option value="{escape(queue.name)}"{" selected" if queue.name == "default" else ""}>'
            f"{escape(_queue(queue))}</option>"
            for queue in choices.queues
        )
        lines.append(
            '<label class="d-block mb-3">Queue '
            f'<select class="form-select" name="queue">{queues}</select></label>'
        )
    if len(choices.datacenters) > 1:
        names = "".join(f"<option>{escape(name)}</option>" for name in choices.datacenters)
        lines.append(
            '<label class="d-block mb-3">Datacenter <select class="form-select" name="datacenter">'
            f'<option value="">where it is best</option>{names}</select></label>'
        )
    return lines


def _gang(choices: Options) -> str:
    """Return the choice of a debug gang: what is held besides, for one run after another."""
    frameworks = "".join(f"<option>{escape(name)}</option>" for name in choices.frameworks)
    gpus = (
        _number("debug_gpus", "GPUs each", "0", 'title="like 1, 0.5 or A100:2"')
        if choices.largest_gpus
        else ""
    )
    return (
        '<details class="nimbus-debug mb-3"><summary>Debug gang: hold slots for distributed runs, '
        "too</summary>\n"
        '<div class="d-flex gap-3"><label>Framework '
        f'<select class="form-select" name="debug_framework">{frameworks}</select></label>'
        f"{_number('debug_workers', 'Workers', 'none', _COUNT)}{gpus}"
        f"{_number('debug_ps', 'Parameter servers', '0', _COUNT)}</div>\n"
        '<p class="text-muted">The session starts without waiting for it. '
        "%nimbus_run then runs on it, at once and as often as wanted; it has a shorter lease of "
        "its own, which can be renewed.</p></details>"
    )


_COUNT = 'inputmode="numeric" pattern="[0-9]+" title="a whole number"'


def _number(name: str, label: str, placeholder: str, attributes: str) -> str:
    return (
        f'<label>{label} <input class="form-control" name="{name}" size="8" '
        f'placeholder="{placeholder}" {attributes}></label>'
    )


def _queue(queue: Queue) -> str:
    return f"{queue.name}: may be stopped for others" if queue.is_preemptible else queue.name
