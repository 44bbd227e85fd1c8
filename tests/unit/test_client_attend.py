"""Staying with a run: its output, its debugger, and what an interrupt does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import httpx
import pytest

from nimbus_hub.client import Job, decode
from nimbus_hub.client.attend import attend
from nimbus_hub.client.lines import Lines
from nimbus_hub.errors import NotFound
from tests.unit import fake_service as fake
from tests.unit.fake_service import FakeService

STREAM = "/api/v1/jobs/j1/logs/stream"
INPUT = "/api/v1/jobs/j1/input"
TRACEBACK = (
    "Traceback (most recent call last):\n"
    '  File "train.py", line 7, in <module>\n'
    "ValueError: nan\n"
    "> train.py(7)<module>()\n"
    "-> raise ValueError(loss)\n"
)
WAITS = "waits in its debugger (post-mortem)"


class FakeScreen:
    """Keeps what is shown; answers are typed one by one, then the input ends."""

    def __init__(self, *answers: str | BaseException) -> None:
        self.shown = ""
        self.answers = list(answers)
        self.is_interrupted_at: Callable[[str], bool] = lambda text: False

    def write(self, text: str) -> None:
        self.shown += text
        if self.is_interrupted_at(text):
            self.is_interrupted_at = lambda text: False
            raise KeyboardInterrupt

    def say(self, text: str) -> None:
        self.shown += f"* {text}\n"

    def ask(self, prompt: str) -> str:
        self.shown += prompt
        if not self.answers:
            raise EOFError
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        self.shown += f"{answer}\n"
        return answer


@pytest.fixture
def service() -> FakeService:
    made = FakeService()
    made.on("POST", INPUT, fake.job())
    made.on("POST", "/api/v1/jobs/j1/stop", fake.job())
    return made


def run(
    service: FakeService, screen: FakeScreen, *, has_names: bool = True, pdb: bool = False
) -> Job:
    job = decode(Job, fake.job(gang="l2"))
    return attend(service.client(), job, screen, Lines(has_names=has_names), has_debugger=pdb)


def typed(service: FakeService) -> list[tuple[str, str]]:
    bodies = [service.body(n) for n, call in enumerate(service.calls()) if "/input" in call]
    return [(body["replica"], body["text"]) for body in bodies]


def waiting(*ranks: int) -> dict[str, Any]:
    replicas = [fake.replica(n, reason=WAITS if n in ranks else "") for n in range(2)]
    return fake.job(replicas=replicas, version=4)


def test_output_is_shown_under_its_names_to_the_end(service: FakeService) -> None:
    logs = [fake.log("a\nb"), fake.log("c\n", replica="ps-0")]
    service.on("GET", STREAM, fake.stream(*logs, fake.ended()))
    screen = FakeScreen()
    assert run(service, screen).state == "succeeded"
    assert screen.shown == "worker-0 | a\nps-0 | c\nworker-0 | b\n"


def test_an_interrupt_stops_the_run_everywhere_and_waits_for_its_end(service: FakeService) -> None:
    logs = [fake.log("a\n"), fake.log("interrupted\n", 2)]
    service.on("GET", STREAM, fake.stream(*logs, fake.ended("stopped")))
    screen = FakeScreen()
    screen.is_interrupted_at = lambda text: "a\n" in text
    with pytest.raises(KeyboardInterrupt):
        run(service, screen)
    assert service.body() == {"reason": "interrupted"}
    assert screen.shown == (
        "worker-0 | a\n* \nstopping j1 everywhere ...\nworker-0 | interrupted\n* j1 stopped\n"
    )


def test_a_second_interrupt_does_not_wait(service: FakeService) -> None:
    service.on("GET", STREAM, fake.stream(fake.log("a\n"), fake.log("b\n", 2), fake.ended()))
    screen = FakeScreen()
    screen.is_interrupted_at = lambda text: "a\n" in text

    def stop(request: httpx.Request) -> httpx.Response:
        screen.is_interrupted_at = lambda text: "b\n" in text
        return httpx.Response(200, json=fake.job())

    service.on("POST", "/api/v1/jobs/j1/stop", stop)
    with pytest.raises(KeyboardInterrupt):
        run(service, screen)
    assert screen.shown.endswith("worker-0 | b\n* j1 is being stopped\n")


def test_a_run_that_ended_meanwhile_needs_no_stop(service: FakeService) -> None:
    service.on("GET", STREAM, fake.stream(fake.log("a\n"), fake.ended()))
    service.on("POST", "/api/v1/jobs/j1/stop", fake.error(409, "ended", "job j1 ended already"))
    screen = FakeScreen()
    screen.is_interrupted_at = lambda text: "a\n" in text
    with pytest.raises(KeyboardInterrupt):
        run(service, screen)
    assert screen.shown.endswith("* j1 succeeded\n")


def test_what_following_says_is_raised_here(service: FakeService) -> None:
    service.on("GET", STREAM, fake.error(404, "not_found", "there is no job j1"))
    with pytest.raises(NotFound, match="there is no job j1"):
        run(service, FakeScreen())


def test_a_replica_that_waits_in_its_debugger_is_talked_to_until_it_ends(
    service: FakeService,
) -> None:
    start = len(TRACEBACK) + len("(Pdb) ")
    service.on(
        "GET",
        STREAM,
        fake.stream(
            fake.log("step 1\n", replica="worker-1"),
            fake.log(f"{TRACEBACK}(Pdb) "),
            waiting(0),
            fake.log("nan\n(Pdb) ", start),
            fake.log("step 2\n", 7, replica="worker-1"),
            fake.log("", start + 10, is_complete=True),
            fake.ended("failed"),
        ),
    )
    screen = FakeScreen("p loss")
    assert run(service, screen, pdb=True).state == "failed"
    assert typed(service) == [("worker-0", "p loss\n"), ("worker-0", "q\n")]
    prefixed = "".join(f"worker-0 | {line}\n" for line in TRACEBACK.splitlines())
    assert screen.shown == (
        f"worker-1 | step 1\n{prefixed}"
        "* worker-0 waits in its debugger: q or Ctrl-D ends it, Ctrl-C the run\n"
        f"{TRACEBACK}(Pdb) p loss\nnan\n(Pdb) * q\nworker-1 | step 2\n"
    )


def test_without_names_nothing_is_shown_twice(service: FakeService) -> None:
    service.on(
        "GET", STREAM, fake.stream(fake.log(f"{TRACEBACK}(Pdb) "), waiting(0), fake.ended("failed"))
    )
    screen = FakeScreen("q")
    run(service, screen, has_names=False, pdb=True)
    assert screen.shown == (
        f"{TRACEBACK}* worker-0 waits in its debugger: q or Ctrl-D ends it, Ctrl-C the run\n"
        "(Pdb) q\n"
    )


def test_the_news_may_come_before_the_prompt(service: FakeService) -> None:
    service.on(
        "GET", STREAM, fake.stream(waiting(0), fake.log(f"{TRACEBACK}(Pdb) "), fake.ended("failed"))
    )
    screen = FakeScreen("q")
    run(service, screen, pdb=True)
    assert screen.shown.endswith(f"the run\n{TRACEBACK}(Pdb) q\n")
    assert typed(service) == [("worker-0", "q\n")]


def test_the_next_replica_that_waits_is_talked_to_after_the_first(service: FakeService) -> None:
    service.on(
        "GET",
        STREAM,
        fake.stream(
            waiting(0, 1),
            fake.log("(Pdb) "),
            fake.log("(Pdb) ", replica="worker-1"),
            fake.log("", 6, is_complete=True),
            fake.log("", 6, replica="worker-1", is_complete=True),
            fake.ended("failed"),
        ),
    )
    run(service, FakeScreen("q", "c"), pdb=True)
    assert typed(service) == [("worker-0", "q\n"), ("worker-1", "c\n")]


def test_a_question_of_the_users_own_is_asked_when_nothing_more_comes(
    service: FakeService,
) -> None:
    answered = Event()

    def answer(request: httpx.Request) -> httpx.Response:
        answered.set()
        return httpx.Response(200, json=fake.job())

    def chunks() -> Iterator[bytes]:
        yield from fake.stream(waiting(0), fake.log("name? ")).iter_raw()
        answered.wait(10)
        yield from fake.stream(fake.ended("failed")).iter_raw()

    service.on("POST", INPUT, answer)
    service.on("GET", STREAM, httpx.Response(200, content=chunks()))
    screen = FakeScreen("ada")
    run(service, screen, pdb=True)
    assert typed(service) == [("worker-0", "ada\n")]
    assert "name? ada\n" in screen.shown


def test_without_the_option_a_debugger_is_nobodys(service: FakeService) -> None:
    service.on("GET", STREAM, fake.stream(waiting(0), fake.ended("failed")))
    screen = FakeScreen()
    run(service, screen)
    assert (screen.shown, typed(service)) == ("", [])


def test_an_interrupt_in_the_debugger_ends_the_run(service: FakeService) -> None:
    service.on("GET", STREAM, fake.stream(waiting(0), fake.log("(Pdb) "), fake.ended("stopped")))
    with pytest.raises(KeyboardInterrupt):
        run(service, FakeScreen(KeyboardInterrupt()), pdb=True)
    assert [call.rpartition("/")[2] for call in service.calls()] == ["stream", "stop"]


def test_a_debugger_that_ended_meanwhile_takes_no_line(service: FakeService) -> None:
    service.on("GET", STREAM, fake.stream(waiting(0), fake.log("(Pdb) "), fake.ended("failed")))
    service.on("POST", INPUT, fake.error(409, "ended", "worker-0 has ended"))
    assert run(service, FakeScreen("p 1"), pdb=True).state == "failed"
