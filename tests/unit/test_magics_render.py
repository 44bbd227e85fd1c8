"""A job as text and HTML, compared whole; the tails of its output."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.client.resources import Job, LogText, Replica
from nimbus_hub.magics.render import as_html, as_text, failed_first, headline, log_html
from nimbus_hub.magics.tails import Tails

START = datetime(2026, 11, 2, 10, 0, tzinfo=UTC)


def replica(rank: int, state: str, exit_code: int | None = None, seconds: int = 0) -> Replica:
    ended = START + timedelta(seconds=seconds) if exit_code is not None else None
    name = f"worker-{rank}"
    return Replica(
        name, name, "worker", rank, 1, f"host-{rank}", state, exit_code, "", START, ended
    )  # fmt: skip


QUEUED = Job(
    id="j-1", name="digits", owner="ada", lease_id="l-1", framework="pytorch",
    framework_reason="",
    argv=("train.py",), state="queued", reason="Waits for 2 GPUs", position=3, starts_by=None,
    attempt=0, attempts=1, progress=None, progress_message="", replicas=(), output_dir=None,
    log_dir=None, created_at=START, started_at=None, ended_at=None, is_ended=False, version=1,
    reason_code="", note="", queue="default", priority=0, placement="", preemptions=0, gang=None,
    deleted_at=None, deletion="",
)  # fmt: skip
RUNNING = replace(
    QUEUED, state="running", reason="", position=None, attempt=1, progress=0.4,
    progress_message="epoch 4", replicas=(replica(0, "running"), replica(1, "running")),
    started_at=START,
)  # fmt: skip
FAILED = replace(
    RUNNING, state="failed", reason="worker-1 exited with code 3.", attempts=2, attempt=2,
    progress=None, replicas=(replica(0, "exited", -15, 9), replica(1, "exited", 3, 8)),
    ended_at=START + timedelta(seconds=75), is_ended=True,
)  # fmt: skip


def piece(name: str, text: str, offset: int = 0, attempt: int = 1) -> LogText:
    return LogText(name, attempt, offset, offset + len(text.encode()), text, False)


def tails_of(*items: LogText, lines: int = 200) -> Tails:
    tails = Tails(lines)
    for item in items:
        tails.add(item)
    return tails


@pytest.mark.parametrize(
    ("job", "line"),
    [
        (QUEUED, "Job digits (j-1): queued, position 3: Waits for 2 GPUs."),
        (RUNNING, "Job digits (j-1): running, 40% epoch 4."),
        (
            FAILED,
            "Job digits (j-1): failed, ran 1m15s, attempt 2 of 2. worker-1 exited with code 3.",
        ),
        (replace(RUNNING, name="", progress=None), "Job j-1: running."),
    ],
)
def test_the_headline_says_state_and_reason(job: Job, line: str) -> None:
    assert headline(job) == line


def test_output_that_a_reason_quotes_is_shown_as_output_only() -> None:
    reason = "worker-1 exited with code 3. Its last lines:\n  Traceback\n  KeyError: 'x'"
    quoting = replace(FAILED, reason=reason)
    assert headline(quoting) == headline(FAILED)
    assert as_html(quoting, Tails()) == as_html(
        replace(FAILED, reason="worker-1 exited with code 3"), Tails()
    )


def test_text_shows_the_table_and_what_failed_first_first() -> None:
    tails = tails_of(
        piece("worker-0", "step 1\nstep 2\n"), piece("worker-1", "\x1b[31mKeyError: 'x'\x1b[0m\n")
    )
    assert as_text(FAILED, tails) == (
        "Job digits (j-1): failed, ran 1m15s, attempt 2 of 2. worker-1 exited with code 3.\n"
        "replica   role    rank  host    state   exit code\n"
        "worker-0  worker  0     host-0  exited  -15\n"
        "worker-1  worker  1     host-1  exited  3\n"
        "\n"
        "--- worker-1: exit code 3\n"
        "KeyError: 'x'\n"
        "\n"
        "--- worker-0: exit code -15\n"
        "step 1\n"
        "step 2"
    )


def test_text_of_a_queued_job_is_its_headline() -> None:
    assert as_text(QUEUED, Tails()) == headline(QUEUED)


def test_html_is_whole_without_a_kernel() -> None:
    html = as_html(RUNNING, tails_of(piece("worker-0", "loss 0.5\n")))
    cell = '<td style="text-align:left;padding:0 1em 0 0">'
    head = '<th scope="col" style="text-align:left;padding:0 1em 0 0">'
    assert html == (
        '<div style="margin:2px 0"><span style="background:#1565c0;color:#fff;padding:1px 8px;'
        'border-radius:8px;font-weight:600" role="status">running</span> '
        "<b>digits (j-1)</b> </div>"
        '<div style="margin:2px 0"><progress max="1" value="0.4" aria-label="progress">40%'
        "</progress> 40% epoch 4</div>"
        f"<table><thead><tr>{head}replica</th>{head}role</th>{head}rank</th>{head}host</th>"
        f"{head}state</th>{head}exit code</th></tr></thead><tbody>"
        f"<tr>{cell}worker-0</td>{cell}worker</td>{cell}0</td>{cell}host-0</td>"
        f"{cell}running</td>{cell}</td></tr>"
        f"<tr>{cell}worker-1</td>{cell}worker</td>{cell}1</td>{cell}host-1</td>"
        f"{cell}running</td>{cell}</td></tr></tbody></table>"
        '<details style="margin:4px 0" open><summary>worker-0: running</summary>'
        '<div style="max-height:20em;overflow:auto;display:flex;flex-direction:column-reverse">'
        '<pre style="flex:none;margin:0;padding:4px;line-height:1.3;white-space:pre-wrap;'
        'overflow-wrap:anywhere">loss 0.5</pre></div>'
        "</details>"
    )


def test_nothing_a_program_or_a_person_wrote_is_markup() -> None:
    evil = "<script>alert(1)</script>"
    job = replace(
        FAILED, name=evil, reason=evil, progress=0.5, progress_message=evil,
        replicas=(replace(FAILED.replicas[0], host=evil, reason=evil),),
    )  # fmt: skip
    assert "<script" not in as_html(job, tails_of(piece("worker-0", evil)))


def test_terminal_colours_and_links_are_left_out() -> None:
    link = "\x1b]8;;http://example.org\x07here\x1b]8;;\x07 \x1b[1;32mok\x1b[0m"
    assert ">here ok<" in log_html(link)


def test_the_replica_that_failed_first_comes_first() -> None:
    names = [each.name for each in failed_first(FAILED)]
    assert names == ["worker-1", "worker-0"]
    assert [each.rank for each in failed_first(RUNNING)] == [0, 1]


def test_of_a_large_gang_some_logs_are_shown() -> None:
    gang = tuple(replica(rank, "running") for rank in range(40))
    lost = replace(gang[39], state="lost")
    shown = failed_first(replace(RUNNING, replicas=(*gang[:39], lost)))
    assert [each.rank for each in shown] == [39, *range(15)]


def test_tails_keep_the_last_lines() -> None:
    tails = tails_of(*(piece("w", f"line {n}\n", n * 7) for n in range(5)), lines=2)
    assert tails.text("w") == "line 3\nline 4\n"
    assert tails.text("unknown") == ""


def test_a_repeated_piece_is_taken_once() -> None:
    tails = Tails()
    assert tails.add(piece("w", "aé\n")) == "aé\n"
    assert tails.add(piece("w", "aé\n")) == ""
    assert tails.add(piece("w", "aé\nb\n")) == "b\n"
    assert tails.text("w") == "aé\nb\n"


def test_a_new_attempt_starts_afresh_and_the_old_one_is_over() -> None:
    tails = tails_of(piece("w", "old\n"), piece("w", "new\n", attempt=2), piece("w", "old\nlate\n"))
    assert tails.text("w") == "new\n"


def test_a_progress_bar_reads_as_in_a_terminal() -> None:
    tails = tails_of(piece("w", "10%\r20%\r30%\ndone\r\n50%\r"))
    assert tails.text("w") == "30%\ndone\n50%"
