"""Every file of the corpus over every transport: one test each, which lists all that differs.

pytest tests/conformance                                       on a local cluster of its own
pytest tests/conformance --endpoint http://localhost:8000      on another endpoint (docs/conformance.md)
"""

import itertools
from pathlib import Path

import pytest

from tests.conformance.runner import Result, Surroundings, run_case
from tests.conformance.transcripts import read_transcript
from tests.conformance.transports import Transport

CORPUS = sorted(Path(__file__).parent.rglob("*.txt"))

_keys = itertools.count()


def test_the_corpus_is_where_it_should_be() -> None:
    assert len(CORPUS) > 30


@pytest.mark.parametrize("transport_name", ["http", "grpc"])
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_transcript(
    path: Path,
    transport_name: str,
    transports: dict[str, Transport],
    surroundings: Surroundings,
) -> None:
    if transport_name not in transports:
        pytest.skip(f"no {transport_name} endpoint")
    transport = transports[transport_name]
    transcript = read_transcript(path)
    if transcript.setup is not None:
        done = run_case(transcript.setup, transports["http"], surroundings, "setup")
        assert not done.difference, f"setup of {path}: {done.difference}"
    results = [
        run_case(case, transport, surroundings, f"k{next(_keys):07}") for case in transcript.cases
    ]
    failures = [text for result in results if (text := verdict(result))]
    ran = sum(not result.skipped for result in results)
    print(f"{path.parent.name}/{path.stem}: {ran} of {len(results)} cases over {transport_name}")
    if not ran:
        pytest.skip(f"nothing here can be said over {transport_name}")
    assert not failures, f"{len(failures)} of {ran} cases differ\n\n" + "\n\n".join(failures)


def verdict(result: Result) -> str:
    """Why a result fails the test; empty if it does not."""
    case = result.case
    title = f"-- {case.name}  ({case.source})"
    if result.skipped:
        return ""
    if case.still_open:
        return "" if result.difference else f"{title}\n   passes now: remove its [open: ...]"
    if not result.difference:
        return ""
    if case.unsure:
        print(f"unsure, not failed: {title}\n{result.difference}")
        return ""
    return f"{title}\n{result.difference}"
