"""Where mutants come from: every request of the conformance corpus, and for the rest of the API its skeletons.

A seed's body is JSON or, where the corpus sends what is none, just text. In it the tables carry the prefix that
`read_corpus` was given, so that a request for one set of tables becomes one for another by replacing the text.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import botocore.session
from botocore.model import ServiceModel
from botocore.utils import ArgumentGenerator

from datamodel.shape_rules import IMPLEMENTED_OPERATIONS
from tests.conformance.runner import Surroundings, body_of, placeholders_of
from tests.conformance.tables import create_request
from tests.conformance.transcripts import Case, read_transcript

CORPUS: Final = Path(__file__).resolve().parents[1] / "conformance"
KEYS: Final = tuple(f"fuzz{number:04}" for number in range(12))
"""Few keys, so that requests meet each other's items."""

EXPRESSIONS: Final = frozenset(
    (
        "ConditionExpression",
        "FilterExpression",
        "KeyConditionExpression",
        "ProjectionExpression",
        "UpdateExpression",
        "Statement",
    )
)
_ARN: Final = "arn:aws:dynamodb:us-east-1:000000000000:table/"
# Waits of the transcripts, which are no operations.
_WAITS: Final = ("WaitActive", "WaitGone")


@dataclass(frozen=True, slots=True)
class Seed:
    """A request: its operation and the text of its body."""

    operation: str
    body: str


@dataclass(slots=True)
class Corpus:
    """What there is to mutate.

    Attributes:
        seeds: By operation.
        setup: Requests that fill the tables before a run.
        expressions: Texts found in the seeds, by member (`EXPRESSIONS`).
        values: Attribute values found in them.
    """

    seeds: dict[str, list[Seed]] = field(default_factory=lambda: defaultdict(list))
    setup: list[Seed] = field(default_factory=list)
    expressions: dict[str, list[str]] = field(default_factory=dict)
    values: list[dict[str, Any]] = field(default_factory=list)


@cache
def service_models() -> tuple[ServiceModel, ...]:
    """The models of the table service and of its streams, as the installed SDK has them."""
    session = botocore.session.get_session()
    return tuple(session.get_service_model(name) for name in ("dynamodb", "dynamodbstreams"))


def read_corpus(prefix: str) -> Corpus:
    """Everything the transcripts ask, and a skeleton for each operation that they do not."""
    corpus = Corpus()
    for path in sorted(CORPUS.rglob("*.txt")):
        transcript = read_transcript(path)
        if transcript.setup is not None:
            corpus.setup += _requests(transcript.setup, prefix, "setup")
        for number, case in enumerate(transcript.cases):
            for seed in _requests(case, prefix, KEYS[number % len(KEYS)]):
                corpus.seeds[seed.operation].append(seed)
    for model in service_models():
        for operation in model.operation_names:
            shape = model.operation_model(operation).input_shape
            members = ArgumentGenerator(use_member_names=True).generate_skeleton(shape)
            corpus.seeds[operation].append(Seed(operation, json.dumps(_filled_in(members, prefix))))
    own = f"{prefix}own"
    for operation, members in {
        "CreateTable": create_request(own, "SN"),
        "UpdateTable": {"TableName": own, "DeletionProtectionEnabled": False},
        "DeleteTable": {"TableName": own},
        "TagResource": {"ResourceArn": _ARN + own, "Tags": [{"Key": "k", "Value": "v"}]},
        "UntagResource": {"ResourceArn": _ARN + own, "TagKeys": ["k"]},
        "ListTagsOfResource": {"ResourceArn": _ARN + own},
    }.items():
        corpus.seeds[operation].insert(0, Seed(operation, json.dumps(members)))
    expressions: dict[str, dict[str, None]] = {name: {} for name in sorted(EXPRESSIONS)}
    values: dict[str, dict[str, Any]] = {}
    for seeds in corpus.seeds.values():
        for seed in seeds:
            for name, found in _walk(_parsed(seed.body)):
                if name in EXPRESSIONS and isinstance(found, str):
                    expressions[name][found[:5000]] = None
                elif isinstance(found, dict) and len(found) == 1 and len(str(found)) < 500:
                    values[json.dumps(found)] = found
    corpus.expressions = {name: list(texts) for name, texts in expressions.items()}
    corpus.values = list(values.values())
    return corpus


def unfuzzed_operations(corpus: Corpus) -> set[str]:
    """Implemented operations for which the corpus has nothing better than a skeleton."""
    return {name for name in IMPLEMENTED_OPERATIONS if len(corpus.seeds.get(name, ())) < 2}


def _requests(case: Case, prefix: str, key: str) -> Iterator[Seed]:
    placeholders = placeholders_of(case, Surroundings(prefix), key)
    for step in case.steps:
        if step.operation not in _WAITS:
            yield Seed(step.operation, body_of(step, case, placeholders))


def _filled_in(value: Any, prefix: str) -> Any:
    """A skeleton with names in it that exist."""
    if isinstance(value, dict):
        return {
            name: f"{prefix}ss" if name == "TableName" else _filled_in(member, prefix)
            for name, member in value.items()
        }
    if isinstance(value, list):
        return [_filled_in(member, prefix) for member in value]
    if isinstance(value, datetime):
        return 0
    return "AAEC" if value is None else value


def _parsed(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _walk(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    yield name, value
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _walk(member, key)
    elif isinstance(value, list):
        for member in value:
            yield from _walk(member, name)
