"""The table of the options of ``nimbus run``; ``run_options`` reads what they were given.

What says which slots are wanted has no default here: on held slots it makes a difference
whether it was given. The defaults are those of ``run_options``.
"""

from __future__ import annotations

import click

__all__ = ["gang_parameters", "run_parameters"]


def run_parameters() -> list[click.Parameter]:
    """Return the options and the argument, for a click command."""
    return [
        click.Option(["--name"], default="", help="Name of the job.  [default: the script's]"),
        *_worker_options("by what the script imports, else script"),
        *_role_options(),
        *_launch_options(),
        _topology_option(),
        *_place_options(),
        *_queue_options(),
        *_held_options(),
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


def gang_parameters() -> list[click.Option]:
    """Return the options that say which slots a debug gang is to hold, and for how long."""
    return [
        *_worker_options("script"),
        *_role_options(),
        _topology_option(),
        click.Option(["--name"], default="", help="Name of the gang."),
        click.Option(
            ["--environment"], help="Software to run in.  [default: the session's, or default]"
        ),
        click.Option(["--duration"], help="How long to hold it: 30m, 1h.  [default: the hub's]"),
        click.Option(
            ["--wait"], metavar="DURATION", help="Longest wait in the queue.  [default: no bound]"
        ),
    ]


def _worker_options(framework: str) -> list[click.Option]:
    """Return what says how many workers there are and what each holds."""
    return [
        click.Option(
            ["--framework"],
            help="How the workers find each other: script (they do not), pytorch, xgboost and so "
            f"on.  [default: {framework}]",
        ),
        click.Option(["--workers"], type=int, help="Number of processes.  [default: 1]"),
        click.Option(
            ["--gpus"],
            help="Per worker: 2, a share of one like 0.5, of some models A100,V100:2.  "
            "[default: 0]",
        ),
        click.Option(["--cpus"], help="Per worker: a number like 2 or 0.5.  [default: 1]"),
        click.Option(["--memory"], help="Per worker: a size like 4G.  [default: 2G]"),
    ]


def _role_options() -> list[click.Option]:
    """Return what says which processes there are besides workers."""
    return [
        click.Option(["--chief"], is_flag=True, help="One chief, of a worker's size, as rank 0."),
        click.Option(["--evaluator"], is_flag=True, help="One evaluator, of a worker's size."),
        click.Option(
            ["--ps"],
            type=int,
            help="Number of parameter servers; they have no GPUs.  [default: 0]",
        ),
        click.Option(["--ps-cpus"], help="Per parameter server.  [default: 1]"),
        click.Option(["--ps-memory"], help="Per parameter server.  [default: 2G]"),
    ]


def _topology_option() -> click.Option:
    return click.Option(
        ["--topology"],
        multiple=True,
        metavar="[ROLE=]WISH",
        help="How slots lie: pack, pack:host, pack:rack, spread, spread:host or any; "
        "for workers, or as in ps=spread. May be repeated.  [default: the role's]",
    )


def _launch_options() -> list[click.Option]:
    """Return what says what the workers run, where, and for how long."""
    return [
        click.Option(
            ["--option"],
            multiple=True,
            metavar="NAME=VALUE",
            help="One of the framework's own options, see its documentation. May be repeated.",
        ),
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
        click.Option(
            ["--stall"],
            metavar="TIME|off",
            help="An attempt without output, progress or new event files for so long, like 10m, "
            "has failed.  [default: the hub's for several replicas, off for one]",
        ),
    ]


def _place_options() -> list[click.Option]:
    """Return what says where it should run."""
    return [
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


def _held_options() -> list[click.Option]:
    """Return what says whether it runs on slots that are held, and how."""
    return [
        click.Option(
            ["--on"],
            type=click.Choice(["held", "queue"]),
            help="Run on the slots of the debug gang that is held, or as a job of its own.  "
            "[default: held if the session holds a gang]",
        ),
        click.Option(
            ["--submit"],
            is_flag=True,
            help="Send it as a job of its own (--on queue); what is not given is as in the gang.",
        ),
        click.Option(
            ["--pdb"],
            is_flag=True,
            help="On held slots: when a replica fails, talk to its debugger here.",
        ),
    ]
