"""A few seeds of whole simulated clusters; `make simulate` runs more."""

import os
import subprocess
import sys

import pytest

from tests.simulation.cluster_workload import simulate
from tests.simulation.run_clusters import search, trace_of


@pytest.mark.parametrize("seed", range(5))
def test_invariants_hold(seed):
    try:
        simulate(seed)
    except Exception:  # noqa: BLE001 - run again with its trace
        pytest.fail(trace_of(seed))


def test_a_seed_replays_exactly():
    first, second = simulate(6, is_tracing=True), simulate(6, is_tracing=True)
    assert list(first.trace) == list(second.trace)
    assert (first.digest, first.stats) == (second.digest, second.stats)
    # In another process, with other hashes of strings.
    code = "from tests.simulation.cluster_workload import simulate; print(simulate(6).digest)"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert int(elsewhere.stdout) == first.digest


def test_a_missing_rule_is_missed():
    assert search("ack before fsync", range(20)) is not None
