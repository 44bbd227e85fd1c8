"""The service's clock: what passes counts, what the system clock is set to does not."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_hub.clock import SystemClock
from nimbus_hub.model.replica import ReplicaState, ReplicaStatus
from nimbus_hub.steady_clock import SteadyClock
from tests.unit.machine import START, Machine

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_it_is_utc_and_goes_on_with_the_time_that_passes(machine: Machine) -> None:
    clock = machine.clock()
    assert clock.now() == START
    machine.pass_by(HOUR)
    assert clock.now() == START + HOUR


@pytest.mark.parametrize("step", [2 * HOUR, -2 * HOUR, timedelta(days=400), -timedelta(days=400)])
def test_a_step_of_the_system_clock_is_no_time_that_passed(
    machine: Machine, step: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    clock = machine.clock()
    machine.system += step
    assert clock.now() == START
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    machine.pass_by(HOUR)
    assert abs(clock.now() - (START + HOUR)) == HOUR / 1000
    assert len(caplog.records) == 1


@pytest.mark.parametrize("step", [30 * SECOND, -30 * SECOND])
def test_a_correction_is_followed_until_both_agree(machine: Machine, step: timedelta) -> None:
    clock = machine.clock()
    machine.system += step
    for _ in range(8):
        machine.pass_by(HOUR)
        assert clock.now() != machine.system
    machine.pass_by(HOUR)
    assert clock.now() == machine.system
    machine.pass_by(HOUR)
    assert clock.now() == machine.system


def test_a_machine_that_slept_has_aged(machine: Machine) -> None:
    clock = machine.clock()
    machine.pass_by(8 * HOUR)
    beat = clock.heartbeat()
    assert (beat.at, beat.uptime_seconds) == (START + 8 * HOUR, 32 * 3600)


@pytest.mark.parametrize("step", [timedelta(0), 5 * HOUR, -5 * HOUR])
def test_the_next_service_goes_on_by_the_time_that_passed(
    machine: Machine, step: timedelta
) -> None:
    last = machine.clock().heartbeat()
    machine.pass_by(HOUR)
    machine.system += step
    assert timedelta(0) < machine.clock(last).now() - (START + HOUR) < SECOND / 50


def test_after_a_start_of_the_machine_its_clock_is_believed(machine: Machine) -> None:
    last = machine.clock().heartbeat()
    machine.start_again(down=3 * HOUR)
    assert machine.clock(last).now() == START + 3 * HOUR


def test_but_not_from_before_the_last_sign_of_life(machine: Machine) -> None:
    last = machine.clock().heartbeat()
    machine.start_again(down=-timedelta(days=20_000))
    assert machine.clock(last).now() == START
    assert machine.clock(None).now() == START - timedelta(days=20_000)


def test_where_starts_of_the_machine_look_alike_the_system_clock_is_believed(
    machine: Machine,
) -> None:
    machine.boot = ""
    last = machine.clock().heartbeat()
    machine.uptime = timedelta(seconds=20)
    machine.system += HOUR
    assert machine.clock(last).now() == START + HOUR


def test_what_the_system_clock_showed_is_put_into_our_time(machine: Machine) -> None:
    clock = machine.clock()
    machine.system += 2 * HOUR
    machine.pass_by(SECOND)
    now = clock.now()
    assert abs(clock.seen(machine.system - SECOND) - (now - SECOND)) < SECOND / 100


def test_the_moments_of_a_replica_are_put_into_our_time(machine: Machine) -> None:
    clock = machine.clock()
    machine.system += 2 * HOUR
    status = ReplicaStatus(ReplicaState.EXITED, 0, started_at=machine.system)
    machine.pass_by(SECOND)
    ended = replace(status, ended_at=machine.system)
    now = clock.now()
    by_ours = ended.by_clock(clock.seen)
    assert by_ours.ended_at == now
    assert by_ours.started_at == now - SECOND
    assert status.by_clock(clock.seen).ended_at is None


def test_it_reads_this_machine_if_nothing_else_is_said() -> None:
    clock, before = SteadyClock(), SystemClock().now()
    assert abs(clock.now() - before) < timedelta(seconds=5)
    assert clock.heartbeat().uptime_seconds > 0


WAYS = st.tuples(
    st.timedeltas(timedelta(0), timedelta(days=1)),
    st.timedeltas(-timedelta(days=1), timedelta(days=1)),
    st.sampled_from([None, timedelta(0), 9 * SECOND]),
)


@given(st.lists(WAYS, max_size=20))
def test_it_never_goes_back_and_is_never_far_from_what_passed(
    ways: list[tuple[timedelta, timedelta, timedelta | None]],
) -> None:
    machine = Machine()
    clock, passed, seen = machine.clock(), timedelta(0), [START]
    for time, step, unseen in ways:
        machine.pass_by(time)
        machine.system += step
        passed += time
        if unseen is not None:
            last = clock.heartbeat()
            machine.pass_by(unseen)
            passed += unseen
            seen.append(clock.now())
            clock = machine.clock(last)
        seen.append(clock.now())
        assert abs(seen[-1] - (START + passed)) <= passed / 1000 + SECOND / 2
    assert all(before <= after for before, after in pairwise(seen))
