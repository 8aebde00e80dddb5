"""The conformance runner itself: what it reads, what it accepts, what it reports."""

import json
from pathlib import Path

import pytest

from tests.conformance.matching import constraint_list_matches, difference, message_matches
from tests.conformance.runner import Surroundings, run_case
from tests.conformance.transcripts import (
    TranscriptError,
    fill_in,
    parse_relaxed,
    read_transcript,
)
from tests.conformance.transports import Outcome

CORPUS = sorted((Path(__file__).parents[1] / "conformance").rglob("*.txt"))
SURROUNDINGS = Surroundings("run-")


class FakeTransport:
    """Answers what it is told to, in order; remembers what it was asked."""

    name = "http"
    shows_empty_lists = True

    def __init__(self, *answers: Outcome) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def can_send(self, operation: str, body: str) -> bool:
        return True

    def send(self, operation: str, body: str) -> Outcome:
        self.asked.append((operation, body))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def close(self) -> None:
        pass


def cases(tmp_path: Path, text: str):
    path = tmp_path / "some.txt"
    path.write_text(text)
    return read_transcript(path)


TEXT = """\
# A comment.
source: somewhere
table: h

setup
PutItem {Item: {pk: {S: "a"}}}

-- a read
GetItem {Key: {pk: {S: "<k>"}},
  ConsistentRead: true}
= {Item: {pk: {S: "<k>"}}}

-- $what is refused [unsure]
source: elsewhere
PutItem {Item: $item}
! $code: It is
  <table>
with what | item | code
  nothing | {} | Nothing
  a thing | {x: {S: "<a*3>"}} | Thing

-- raw [open: later] [http]
table: none
PutItem raw: {"a"
! SerializationException:
"""


def test_reading(tmp_path):
    transcript = cases(tmp_path, TEXT)
    assert transcript.setup is not None
    assert [step.operation for step in transcript.setup.steps] == ["PutItem"]
    read, nothing, thing, raw = transcript.cases
    assert (read.source, read.table, read.line) == ("somewhere", "h", 8)
    assert (nothing.name, nothing.unsure, nothing.source) == (
        "nothing is refused",
        True,
        "elsewhere",
    )
    assert thing.steps[0].body == '{Item: {x: {S: "<a*3>"}}}'
    assert thing.steps[0].expected.code == "Thing"
    assert thing.steps[0].expected.text == "It is <table>"
    assert (raw.table, raw.still_open, raw.http_only) == ("none", "later", True)


@pytest.mark.parametrize(
    "text",
    [
        "PutItem {}\n",
        "-- no source\nPutItem {}\n",
        "source: s\n-- nothing asked\n",
        "source: s\n-- a\n= {}\n",
        "source: s\n-- a\nPutItem {x: $x}\nwith x | y\n  1\n",
        "source: s\n-- a\nwhat is this\n",
    ],
)
def test_malformed_files_are_refused(tmp_path, text):
    with pytest.raises(TranscriptError):
        cases(tmp_path, text)


def test_relaxed_json():
    assert parse_relaxed('{Key: {":v": {N: "1"}}, #n: "a: b", Items*: [true]}') == {
        "Key": {":v": {"N": "1"}}, "#n": "a: b", "Items*": [True],
    }  # fmt: skip
    assert parse_relaxed("{:v: @maps(2)}") == {":v": {"M": {"a": {"M": {"a": {"S": "x"}}}}}}
    assert parse_relaxed("@lists(1)") == {"L": [{"S": "x"}]}
    with pytest.raises(ValueError, match="Expecting"):
        parse_relaxed("{a: }")
    assert fill_in("<t>: a <> b < c AND <ab*2>", {"t": "x"}) == "x: a <> b < c AND abab"


def test_reads_back_what_was_asked(tmp_path):
    read = cases(tmp_path, TEXT).cases[0]
    transport = FakeTransport(Outcome({"Item": {"pk": {"S": "key00001"}}}))
    assert run_case(read, transport, SURROUNDINGS, "key00001").difference == ""
    ((operation, body),) = transport.asked
    assert operation == "GetItem"
    assert json.loads(body) == {
        "TableName": "run-h", "Key": {"pk": {"S": "key00001"}}, "ConsistentRead": True,
    }  # fmt: skip


def test_differences_are_reported_as_a_transcript_would_have_them(tmp_path):
    read, nothing, *_ = cases(tmp_path, TEXT).cases
    result = run_case(read, FakeTransport(Outcome()), SURROUNDINGS, "key00001")
    assert "answer: lacks ['Item']" in result.difference
    result = run_case(nothing, FakeTransport(Outcome(code="Other", message="m")), SURROUNDINGS, "k")
    assert "expected: ! Nothing: It is run-h" in result.difference
    assert "! Other: m" in result.difference
    right = FakeTransport(Outcome(code="Nothing", message="It is run-h"))
    assert run_case(nothing, right, SURROUNDINGS, "k").difference == ""
    odd = FakeTransport(Outcome(code="Nothing", message="It is run-h", malformed="status 500"))
    assert "status 500" in run_case(nothing, odd, SURROUNDINGS, "k").difference


def test_a_lagging_read_is_repeated(tmp_path):
    (case,) = cases(tmp_path, "source: s\n-- a\nGetItem {}\n= {Item: {}}\n").cases
    transport = FakeTransport(Outcome(), Outcome(), Outcome({"Item": {}}))
    assert run_case(case, transport, SURROUNDINGS, "k").difference == ""
    assert len(transport.asked) == 3


def test_members_of_an_error(tmp_path):
    text = 'source: s\n-- a\nPutItem {}\n! Failed: no\n= {Item: {a: {S: "b"}}}\n'
    (case,) = cases(tmp_path, text).cases
    item = {"Item": {"a": {"S": "b"}}}
    with_item = FakeTransport(Outcome(item, "Failed", "no"))
    assert run_case(case, with_item, SURROUNDINGS, "k").difference == ""
    without = FakeTransport(Outcome({}, "Failed", "no"))
    assert "lacks ['Item']" in run_case(case, without, SURROUNDINGS, "k").difference


@pytest.mark.parametrize(
    ("expected", "actual", "exact", "same"),
    [
        ({"a": 1}, {"a": 1.0}, True, True),
        ({"a": 1}, {"a": True}, True, False),
        ({"a": 1}, {"a": 1, "b": 2}, True, False),
        ({"a": 1}, {"a": 1, "b": 2}, False, True),
        ({"SS": ["a", "b"]}, {"SS": ["b", "a"]}, True, False),
        ({"L": ["a", "b"]}, {"L": ["b", "a"]}, True, False),
        ({"Items*": [{"x": 1}, {"x": 2}]}, {"Items": [{"x": 2}, {"x": 1}]}, True, True),
        ({"Items*": [{"x": 1}]}, {"Items": []}, True, False),
        ({"Id": "<uuid>"}, {"Id": "01234567-89ab-cdef-0123-456789abcdef"}, True, True),
        ({"Id": "<uuid>"}, {"Id": "x"}, True, False),
        ({"t": "<number>"}, {"t": 5.25}, True, True),
        ({"t": "<any>"}, {"t": None}, True, False),
    ],
)  # fmt: skip
def test_matching(expected, actual, exact, same):
    assert (difference(expected, actual, exact=exact) is None) is same


def test_messages():
    assert message_matches("no", "no", loose=False)
    assert not message_matches("no", "1 validation error detected: no", loose=False)
    assert message_matches("no", "1 validation error detected: no", loose=True)
    for older, newer in (
        (
            "ExpressionAttributeValues contains invalid value: Input collection [b, a, b] contains for key :v",
            '1 validation error detected: Input collection ["a", "b", "b"] contains',
        ),
        (
            "1 validation error detected: Value '0' at 'limit' failed to satisfy",
            "1 validation error detected: Value at 'Limit' failed to satisfy",
        ),
        (
            "1 validation error detected: Value 'X' at 'select' failed: Member in enum value set: [A, B]",
            "Failed: Member in enum value set: [C]",
        ),
    ):
        assert not message_matches(newer, older, loose=False)
        assert message_matches(newer, older, loose=True)
    both = "2 validation errors detected: A: B; C: D"
    assert constraint_list_matches("C: D\nA: B", both, loose=False)
    assert not constraint_list_matches("A: B", both, loose=False)
    assert constraint_list_matches("C: D\nA: B", "1 validation error detected: A: B", loose=True)
    assert not constraint_list_matches("A: B", "3 validation errors detected: A: B", loose=False)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_of_the_corpus_can_be_read(path):
    transcript = read_transcript(path)
    assert transcript.cases
    titles = [case.name for case in transcript.cases]
    assert len(set(titles)) == len(titles), "two cases of one name"
    placeholders = {
        "k": "k",
        "table": "t",
        "prefix": "p",
        "own": "o",
        "region": "r",
        "account": "1",
    }
    for case in transcript.cases:
        for step in case.steps:
            if not step.body.startswith("raw:"):
                parse_relaxed(fill_in(step.body, placeholders))
            if step.expected.kind in ("exact", "partial"):
                parse_relaxed(fill_in(step.expected.text, placeholders))
            assert "$" not in step.expected.text, f"{path}:{step.line}: a column is missing"
