"""Gensim finds topics for real: in one process, and with workers that serve it."""

from __future__ import annotations

import pytest

from tests.frameworks.cluster import Cluster

ENVIRONMENTS = ("gensim",)
LINE = "--framework gensim --environment gensim --cpus 0.5"


def test_workers_find_what_one_process_finds(cluster: Cluster) -> None:
    alone = cluster.train(f"{LINE} gensim_topics.py")
    many = cluster.train(f"{LINE} --workers 2 gensim_topics.py")
    assert many.output["chief-0"].split("singular=")[1].split()[0] in alone.text
    assert (alone.value("pure"), many.value("pure")) == (3, 3)
    # Which worker gets which part is not settled, and with it the order of sums.
    assert many.value("perplexity") == pytest.approx(alone.value("perplexity"), abs=0.02)
    assert (alone.value("workers"), many.value("workers")) == (1, 2)
