"""The fuzzer for a short while, and that nothing escapes it."""

from datamodel.shape_rules import IMPLEMENTED_OPERATIONS
from tests.fuzz.corpus import read_corpus, service_models, unfuzzed_operations
from tests.fuzz.fuzzer import Fuzzer
from tests.fuzz.watch import Watch
from tests.fuzz.worlds import Worlds

SEED = 20120810
ROUNDS = 1500


def test_every_operation_has_requests_to_mutate():
    corpus = read_corpus("fuzz-")
    assert not unfuzzed_operations(corpus), "implemented but asked by no transcript: add some"
    names = {name for model in service_models() for name in model.operation_names}
    assert names <= set(corpus.seeds)


def test_no_request_breaks_anything(cluster):
    worlds = Worlds(cluster.http, cluster.grpc, f"run-{SEED}-")
    try:
        fuzzer = Fuzzer(worlds, SEED)
        fuzzer.play_valid_requests()
        report = fuzzer.run(ROUNDS, Watch(cluster))
    finally:
        worlds.close()
    print(report.text())
    assert not report.findings, "\n\n".join(report.findings)
    for operation in IMPLEMENTED_OPERATIONS:
        counts = report.outcomes[operation]
        assert counts["ok"], f"{operation} never succeeded: {counts}"
        assert counts["ok"] < counts.total() or operation.startswith("Describe"), operation
