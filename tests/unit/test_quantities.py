"""How people write amounts, and back again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.quantities import (
    GpuAmount,
    format_cpus,
    format_duration,
    format_gpus,
    format_memory,
    parse_cpus,
    parse_duration,
    parse_gpus,
    parse_memory,
)

PARSERS: tuple[Callable[[str], object], ...] = (
    parse_cpus,
    parse_duration,
    parse_gpus,
    parse_memory,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", 5400),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        (" 2H ", 7200),
        (45, 45),
        ("0.5", 0.5),
    ],
)
def test_durations_are_read_as_people_write_them(text: str | int, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 * 2**30), ("512M", 512 * 2**20), ("1.5GiB", 3 * 2**29), ("2kb", 2048), (7, 7)],
)
def test_memory_is_read_in_binary_units(text: str | int, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("2", GpuAmount(2)),
        (0, GpuAmount(0)),
        ("2.0", GpuAmount(2)),
        (0.5, GpuAmount(1, 500)),
        ("0.125", GpuAmount(1, 125)),
        ("A100:2", GpuAmount(2, 1000, ("A100",))),
        ("A100,V100:0.5", GpuAmount(1, 500, ("A100", "V100"))),
        ("T4,T4:1", GpuAmount(1, 1000, ("T4",))),
        ("rtx-4090.x:1", GpuAmount(1, 1000, ("rtx-4090.x",))),
    ],
)
def test_gpus_are_a_number_or_a_share_of_one_and_maybe_models(
    text: str | float, gpus: GpuAmount
) -> None:
    assert parse_gpus(text) == gpus


@pytest.mark.parametrize("text", ["0", "2", "0.5", "0.125", "A100:2", "A100,V100:0.5"])
def test_gpus_come_back_as_written(text: str) -> None:
    assert format_gpus(*parse_gpus(text)) == text


@pytest.mark.parametrize(
    ("parse", "text", "sentence"),
    [
        (parse_duration, "soon", "duration must be like 90m, 2h or 1d, got 'soon'"),
        (parse_duration, "", "duration must be like"),
        (parse_duration, "nan", "duration must be like"),
        (parse_duration, "inf", "duration must be like"),
        (parse_duration, "9" * 5000 + "h", "duration must be like"),
        (parse_duration, "1h 30m", "duration must be like"),
        (parse_duration, "0s", "duration must be more than 0"),
        (parse_duration, "-5", "duration must be more than 0"),
        (parse_duration, "3651d", "at most 3650d, got '3651d'"),
        (parse_memory, "lots", "memory must be a size like 4G or 512M, got 'lots'"),
        (parse_memory, "-4G", "memory must be a size"),
        (parse_memory, "4X", "memory must be a size"),
        (parse_memory, "0", "memory must be more than 0"),
        (parse_memory, "0.1", "memory must be more than 0"),
        (parse_memory, "9" * 400, "at most 1048575T"),
        (parse_cpus, "many", "cpus must be a number like 2 or 0.5, got 'many'"),
        (parse_cpus, "nan", "cpus must be"),
        (parse_cpus, "inf", "cpus must be"),
        (parse_cpus, "0", "cpus must be more than 0"),
        (parse_cpus, "0.0001", "cpus must be more than 0"),
        (parse_cpus, "1e9", "less than 1000000, got '1e9'"),
        (
            parse_gpus,
            "two",
            "gpus must be a number, a share of one GPU like 0.5, or MODEL:NUMBER like A100:2, "
            "got 'two'",
        ),
        (parse_gpus, "A100", "gpus must be a number"),
        (parse_gpus, "A100,:1", "gpus must be a number"),
        (parse_gpus, "0.0001", "gpus must be a number"),
        (parse_gpus, "1.5", "gpus must be a whole number or a share of one GPU, got 1.5"),
        (parse_gpus, "9" * 5000, "gpus must be a number"),
        (parse_gpus, "-1", "gpus must be at least 0, got -1"),
    ],
)
def test_odd_amounts_are_refused_in_a_sentence(
    parse: Callable[[str], object], text: str, sentence: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(text)
    assert sentence in refused.value.message


@given(st.text())
@pytest.mark.parametrize("parse", PARSERS)
def test_any_text_is_read_or_refused(parse: Callable[[str], object], text: str) -> None:
    # Any other exception would be a failure of the service.
    with suppress(InvalidRequest):
        parse(text)


@given(st.integers(1, 10**9 - 1))
def test_cpus_come_back_as_written(milli: int) -> None:
    assert parse_cpus(format_cpus(milli)) == milli


@given(st.integers(1, 3650 * 86400))
def test_durations_come_back_to_the_second_unit(seconds: int) -> None:
    value = timedelta(seconds=seconds)
    again = parse_duration(format_duration(value))
    assert again <= value
    assert format_duration(again) == format_duration(value)


@given(st.integers(1, 2**59))
def test_memory_comes_back_to_one_digit(size: int) -> None:
    again = parse_memory(format_memory(size))
    assert abs(again - size) <= 0.05 * size


@pytest.mark.parametrize(
    ("value", "text"),
    [(timedelta(0), "0s"), (timedelta(minutes=90), "1h30m"), (timedelta(days=1), "1d")],
)
def test_durations_are_written_short(value: timedelta, text: str) -> None:
    assert format_duration(value) == text
