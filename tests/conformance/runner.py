"""Runs transcripts through a transport and says what differs.

A case's requests go out in order. `<k>` in them is a key of 8 ASCII characters that no other case uses. A read
that is not strongly consistent may lag behind, so it is repeated for a while until it is as expected.
`WaitActive` and `WaitGone` are no operations of the service: they wait for a table.
"""

import json
import re
import time
from dataclasses import dataclass
from typing import Final

from tests.conformance.matching import constraint_list_matches, difference, message_matches
from tests.conformance.tables import wait_for_table
from tests.conformance.transcripts import Case, Expectation, Step, fill_in, parse_relaxed
from tests.conformance.transports import Outcome, Transport

EVENTUAL_TIMEOUT_S: Final = 3.0
# Operations whose faults by themselves stand behind words of the newer validation layer (2026-10-09).
_IN_ENVELOPE: Final = frozenset({"PutItem", "UpdateItem", "DeleteItem"})
_READS: Final = frozenset(("GetItem", "BatchGetItem", "Query", "Scan"))
# Empty maps that gRPC cannot say; an empty item it can.
_MAPS: Final = frozenset(("UnprocessedKeys", "UnprocessedItems"))
_WAITS: Final = {"WaitActive": False, "WaitGone": True}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run's placeholders stand for.

    Attributes:
        prefix: Of the names of all its tables.
        region: Of ARNs.
        account_id: Of ARNs.
        loose: Allow for the service's rewording (`matching.message_matches`).
    """

    prefix: str
    region: str = "us-east-1"
    account_id: str = "000000000000"
    loose: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What a case came to: `difference` is empty when all was as expected."""

    case: Case
    difference: str = ""
    skipped: bool = False


def run_case(case: Case, transport: Transport, surroundings: Surroundings, key: str) -> Result:
    """Run one case.

    Args:
        case: The case.
        transport: Where to.
        surroundings: Values of placeholders.
        key: Value of `<k>`, 8 characters.
    """
    placeholders = placeholders_of(case, surroundings, key)
    if transport.name != "http" and case.http_only:
        return Result(case, skipped=True)
    bodies = [(step, body_of(step, case, placeholders)) for step in case.steps]
    if not all(
        step.operation in _WAITS or transport.can_send(step.operation, body)
        for step, body in bodies
    ):
        return Result(case, skipped=True)
    for step, body in bodies:
        if step.operation in _WAITS:
            wait_for_table(transport, json.loads(body)["TableName"], gone=_WAITS[step.operation])
            continue
        found = _run_step(step, body, transport, placeholders, loose=surroundings.loose)
        if found:
            return Result(case, f"line {step.line}: {step.operation} {body[:2000]}\n{found}")
    return Result(case)


def placeholders_of(case: Case, surroundings: Surroundings, key: str) -> dict[str, str]:
    """What the placeholders in a case's texts stand for."""
    return {
        "k": key,
        "prefix": surroundings.prefix,
        "region": surroundings.region,
        "account": surroundings.account_id,
        "table": surroundings.prefix + case.table,
        "own": f"{surroundings.prefix}own-{key}",
    }


def body_of(step: Step, case: Case, placeholders: dict[str, str]) -> str:
    """The text of a request: JSON, or what the transcript sends as it is."""
    text = fill_in(step.body, placeholders)
    if text.startswith("raw:"):
        return text.removeprefix("raw:").strip()
    members = parse_relaxed(text)
    names_table = "Statement" not in step.operation and not step.operation.startswith("List")
    if case.table != "none" and isinstance(members, dict) and names_table:
        members = {"TableName": placeholders["table"], **members}
    return json.dumps(members)


def _run_step(
    step: Step, body: str, transport: Transport, placeholders: dict[str, str], *, loose: bool
) -> str:
    envelope = "1 validation error detected: " if step.operation in _IN_ENVELOPE else ""
    placeholders = {**placeholders, "envelope": envelope}
    may_lag = step.operation in _READS and '"ConsistentRead": true' not in body
    deadline = time.monotonic() + (EVENTUAL_TIMEOUT_S if may_lag else 0)
    while True:
        outcome = transport.send(step.operation, body)
        found = compare(
            step.expected,
            outcome,
            placeholders,
            loose=loose,
            shows_empty_lists=transport.shows_empty_lists,
        )
        # A wrong error will stay wrong; only data lags.
        if not found or outcome.code or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def compare(
    expected: Expectation,
    outcome: Outcome,
    placeholders: dict[str, str],
    *,
    loose: bool = False,
    shows_empty_lists: bool = True,
) -> str:
    """What differs, in the words of a transcript; empty if nothing does."""
    if outcome.malformed:
        return f"   malformed: {outcome.malformed}\n   got: {shown(outcome)}"
    text = fill_in(expected.text, placeholders)
    if expected.kind == "ok":
        return f"   expected success\n   got: {shown(outcome)}" if outcome.code else ""
    if expected.kind in ("exact", "partial"):
        if outcome.code:
            return f"   expected: = {text}\n   got:      {shown(outcome)}"
        want = parse_relaxed(text)
        if not shows_empty_lists:
            want = {
                name: value
                for name, value in want.items()
                if value != [] and not (value == {} and name in _MAPS)
            }
        found = difference(want, outcome.members, exact=expected.kind == "exact", where="answer")
        return "" if found is None else f"   {found}\n   got: {shown(outcome)}"
    if outcome.code != expected.code or not _message_fits(expected, text, outcome, loose=loose):
        return f"   expected: ! {expected.code}: {text}\n   got:      {shown(outcome)}"
    if expected.members:
        want = parse_relaxed(fill_in(expected.members, placeholders))
        found = difference(want, outcome.members, exact=True, where="error")
        return "" if found is None else f"   {found}"
    return ""


def _message_fits(expected: Expectation, text: str, outcome: Outcome, *, loose: bool) -> bool:
    message = outcome.message
    if expected.kind == "error_pattern":
        return outcome.is_cut or re.fullmatch(text, message, re.DOTALL) is not None
    if expected.kind == "error_list":
        if outcome.is_cut:
            return " validation error" in message
        return constraint_list_matches(text, message, loose=loose)
    if outcome.is_cut:
        return text.startswith(message[:600])
    return message_matches(text, message, loose=loose)


def shown(outcome: Outcome) -> str:
    """An outcome as a transcript would have it."""
    if outcome.code:
        more = f"  {json.dumps(outcome.members)}" if outcome.members else ""
        return f"! {outcome.code}: {outcome.message[:1500]}{more}"
    return f"= {json.dumps(outcome.members)[:1500]}"
