"""What containers use, from the engine's figures for both kinds of control groups."""

from __future__ import annotations

from nimbus_hub.executors.docker.usage import usage_of
from nimbus_hub.model.replica import Usage


def test_files_in_the_cache_are_no_need_of_a_container() -> None:
    cpu = {"cpu_usage": {"total_usage": 2_500_000_000}}
    one = {"usage": 300, "stats": {"inactive_file": 1, "total_inactive_file": 100}}
    two = {"usage": 300, "stats": {"inactive_file": 120}}
    assert usage_of({"cpu_stats": cpu, "memory_stats": one}) == Usage(2.5, 200)
    assert usage_of({"cpu_stats": cpu, "memory_stats": two}) == Usage(2.5, 180)


def test_what_all_networks_of_a_container_carried_is_added_up() -> None:
    networks = {"eth0": {"rx_bytes": 5, "tx_bytes": 7}, "eth1": {"rx_bytes": 10, "tx_bytes": 20}}
    values = {"cpu_stats": {"cpu_usage": {"total_usage": 10**9}}, "networks": networks}
    assert usage_of(values) == Usage(1.0, received_bytes=15, sent_bytes=27)


def test_a_container_that_does_not_run_tells_nothing() -> None:
    assert usage_of({"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}) is None
    assert usage_of({}) is None
