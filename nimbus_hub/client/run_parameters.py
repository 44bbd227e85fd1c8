"""The table of the options of ``nimbus run``; ``run_options`` reads what they were given."""

from __future__ import annotations

import click

__all__ = ["run_parameters"]


def run_parameters() -> list[click.Parameter]:
    """Return the options and the argument, for a click command."""
    return [
        *_worker_options(),
        *_role_options(),
        *_launch_options(),
        *_place_options(),
        *_queue_options(),
        click.Option(
            ["--follow/--detach"],
            default=None,
            help="Show the output until the job ends, or return at once.",
        ),
        click.Option(
            ["--dry-run"],
            is_flag=True,
            help="Say where it would run and why, or why it would wait, and start nothing.",
        ),
        click.Argument(["argv"], nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT [ARGS]..."),
    ]


def _worker_options() -> list[click.Option]:
    """Return what says how many workers there are and what each holds."""
    return [
        click.Option(["--name"], default="", help="Name of the job.  [default: the script's]"),
        click.Option(
            ["--framework"],
            default="script",
            show_default=True,
            help="How the workers find each other: script (they do not) or pytorch.",
        ),
        click.Option(
            ["--workers"], type=int, default=1, show_default=True, help="Number of processes."
        ),
        click.Option(
            ["--gpus"],
            default="0",
            show_default=True,
            help="Per worker: 2, a share of one like 0.5, of some models A100,V100:2.",
        ),
        click.Option(
            ["--cpus"], default="1", show_default=True, help="Per worker: a number like 2 or 0.5."
        ),
        click.Option(
            ["--memory"], default="2G", show_default=True, help="Per worker: a size like 4G."
        ),
    ]


def _role_options() -> list[click.Option]:
    """Return what says which processes there are besides workers."""
    return [
        click.Option(["--chief"], is_flag=True, help="One chief, of a worker's size, as rank 0."),
        click.Option(
            ["--evaluators"],
            type=int,
            default=0,
            show_default=True,
            help="Number of evaluators, of a worker's size.",
        ),
        click.Option(
            ["--ps"],
            type=int,
            default=0,
            show_default=True,
            help="Number of parameter servers; they have no GPUs.",
        ),
        click.Option(["--ps-cpus"], default="1", show_default=True, help="Per parameter server."),
        click.Option(
            ["--ps-memory"], default="2G", show_default=True, help="Per parameter server."
        ),
    ]


def _launch_options() -> list[click.Option]:
    """Return what says what the workers run, where, and for how long."""
    return [
        click.Option(
            ["--env"],
            multiple=True,
            metavar="K=V",
            help="Environment variable; K alone takes its value here. May be repeated.",
        ),
        click.Option(
            ["--workdir"],
            default=".",
            metavar="DIR",
            help="Directory that is copied to the job and where it runs.  [default: this one]",
        ),
        click.Option(
            ["--environment"], help="Software to run in.  [default: the session's, or default]"
        ),
        click.Option(["--duration"], help="Longest run: 90m, 2h, 1d.  [default: the hub's]"),
        click.Option(
            ["--expected"],
            metavar="DURATION",
            help="How long it will likely take; makes estimates better, ends nothing.",
        ),
        click.Option(
            ["--retries"],
            type=int,
            default=0,
            show_default=True,
            help="How often a failed job is started again.",
        ),
    ]


def _place_options() -> list[click.Option]:
    """Return what says where it should run."""
    return [
        click.Option(
            ["--topology"],
            multiple=True,
            metavar="[ROLE=]WISH",
            help="How slots lie: pack, pack:host, pack:rack, spread, spread:host or any; "
            "for workers, or as in ps=spread. May be repeated.  [default: the role's]",
        ),
        click.Option(
            ["--datacenter"], metavar="NAME", help="Where to run.  [default: where it is best]"
        ),
        click.Option(
            ["--input", "inputs"],
            multiple=True,
            metavar="URL[=SIZE]",
            help="Data it reads, like s3://bucket/x=120G. May be repeated.",
        ),
        click.Option(
            ["--output", "outputs"],
            multiple=True,
            metavar="URL[=SIZE]",
            help="Data it writes. May be repeated.",
        ),
        click.Option(
            ["--step-bytes"],
            metavar="SIZE",
            help="What a worker sends the others in each step, like 500M; for the plan.",
        ),
    ]


def _queue_options() -> list[click.Option]:
    """Return what says how soon it should run, and at what price."""
    return [
        click.Option(["--queue"], default="default", show_default=True, help="Where to wait."),
        click.Option(
            ["--priority"],
            type=int,
            default=0,
            show_default=True,
            help="Higher comes first, below 0 lets others ahead.",
        ),
        click.Option(
            ["--preemptible"],
            is_flag=True,
            help="May be stopped, and started again, for others that come first.",
        ),
    ]
