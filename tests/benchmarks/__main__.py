"""`python -m tests.benchmarks`: measures, prints a table, exits with 1 if a goal is missed."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import secrets
import signal
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import psutil

from nimbus_hub.up.state import State
from tests.benchmarks.figures import Comparison, Limit, Series, as_json, as_table
from tests.benchmarks.held import compare_held
from tests.benchmarks.hubs import nimbus_hub, stock_hub
from tests.benchmarks.jobs import compare_jobs
from tests.benchmarks.sessions import compare_sessions

_PARTS = ("sessions", "jobs", "held")
_LIMIT_SECONDS = 600.0
"""Then measuring is given up; ending what was started takes seconds more."""

Figures = tuple[list[Comparison], list[Series], list[Limit]]


def say(text: str) -> None:
    """Tell how far it is."""
    click.echo(text, err=True)


async def measure(rounds: int, parts: frozenset[str], ray: Path | None) -> Figures:
    """Start what is needed, measure it, and end it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory(prefix="nimbus-bench-") as name:
        async with asyncio.timeout(_LIMIT_SECONDS):
            return await _measure(Path(name), rounds, parts, ray)


async def _measure(
    directory: Path, rounds: int, parts: frozenset[str], ray: Path | None
) -> Figures:
    comparisons: list[Comparison] = []
    notes: list[Series] = []
    limits: list[Limit] = []
    for name in ("nimbus", "cold", "stock"):
        (directory / name).mkdir()
    token = secrets.token_hex(32)
    say("starting a Nimbus hub ...")
    async with nimbus_hub(directory / "nimbus", token) as hub:
        if "sessions" in parts:
            async with AsyncExitStack() as stack:
                say("starting a Nimbus hub without warm sessions ...")
                cold = await stack.enter_async_context(
                    nimbus_hub(directory / "cold", token, is_warm=False)
                )
                say("starting a stock JupyterHub ...")
                proxy = State(directory / "nimbus" / "state")
                other = await stack.enter_async_context(
                    stock_hub(directory / "stock", token, proxy)
                )
                comparisons, notes = await compare_sessions(hub, cold, other, rounds, say)
        if "jobs" in parts:
            comparisons += await compare_jobs(hub, directory, rounds, say)
        if "held" in parts:
            held, limits = await compare_held(hub, directory, rounds, ray, say)
            comparisons += held
        say("ending everything ...")
    return comparisons, notes, limits


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 20))
@click.option(
    "--only", type=click.Choice(_PARTS), help="Measure this part only; default: all of them."
)
@click.option(
    "--ray",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Ray's command line; without it held gangs are measured beside torchrun alone.",
)
@click.option(
    "--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write JSON here too."
)
def main(rounds: int, only: str | None, ray: Path | None, file: Path | None) -> None:
    """Measure sessions, jobs and runs on held gangs beside the stock ways."""
    parts = frozenset([only] if only else _PARTS)
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    try:
        comparisons, notes, limits = asyncio.run(measure(rounds, parts, ray))
    except TimeoutError as error:
        raise click.ClickException(f"not done after {_LIMIT_SECONDS:.0f} s") from error
    except asyncio.CancelledError:
        raise click.ClickException("interrupted; everything was ended") from None
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error
    if file:
        file.write_text(
            json.dumps({**about, **as_json(comparisons, notes, limits)}, indent=2) + "\n"
        )
    click.echo(as_table(comparisons, notes, limits))
    if not all(one.is_met for one in (*comparisons, *limits)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
