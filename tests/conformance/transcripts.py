"""Reads the corpus: text files of cases, each a short dialogue with the service.

    source: where this is known from        (once per file, or per case: a case without a source is an error)
    table: h                                (whose name requests get that have no TableName)

    -- an empty set is refused              (a case; flags in brackets at the end of the line)
    PutItem {Item: {pk: {S: "<k>"}, x: {SS: []}}}
    ! ValidationException: One or more parameter values were invalid: An string set  may not be empty

The whole grammar is in docs/conformance.md.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

ExpectationKind = Literal["ok", "exact", "partial", "error", "error_pattern", "error_list"]

_FLAG: Final = re.compile(r"\s*\[(unsure|http|open: [^\]]*)\]$")
_OPERATION: Final = re.compile(r"([A-Z][A-Za-z]+|\$[a-z_]+)(?:\s+(.*))?", re.DOTALL)
_REPEAT: Final = re.compile(r"<([^<>*]+)\*(\d+)>")
_NEST: Final = re.compile(r"@(maps|lists)\((\d+)\)")
_CELL_END: Final = re.compile(r"(?:^| )\|(?= |$)")
_COLUMN: Final = re.compile(r"\$(?:\{([a-z_]+)\}|([a-z_]+))")
_TOKEN: Final = re.compile(r'"(?:\\.|[^"\\])*"|([#:]?[A-Za-z_0-9.-]+\*?)(?=\s*:(?:\s|$))')


class TranscriptError(Exception):
    """A file of the corpus is malformed; the text names file and line."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a step must answer.

    Attributes:
        kind: `ok` (any success), `exact` or `partial` answer, `error` with this message, with a message that
            matches a pattern, or with a list of broken constraints in any order.
        text: JSON of the answer, or the error's message or pattern, before placeholders are filled in.
        code: Short code of the error.
        members: JSON of what the error's body has besides `__type` and the message; empty: not looked at.
    """

    kind: ExpectationKind
    text: str = ""
    code: str = ""
    members: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One request: `body` is relaxed JSON, or after `raw:` the body's very text."""

    operation: str
    body: str
    expected: Expectation
    line: int


@dataclass(frozen=True, slots=True)
class Case:
    """One case, with the columns of its row filled in.

    Attributes:
        name: Its title, with the row's values where it has rows.
        steps: The dialogue.
        source: Where it is known from.
        table: Short name of its table, or `none`.
        unsure: Reported, not failed.
        http_only: Not for gRPC.
        still_open: Why it is known to fail; empty if it must pass.
        line: Where it begins.
    """

    name: str
    steps: tuple[Step, ...]
    source: str
    table: str
    unsure: bool
    http_only: bool
    still_open: str
    line: int


@dataclass(frozen=True, slots=True)
class Transcript:
    """A file of the corpus: what it needs once before, and its cases."""

    path: Path
    setup: Case | None
    cases: tuple[Case, ...]


@dataclass(slots=True)
class _Draft:
    name: str
    line: int
    source: str
    table: str
    flags: list[str] = field(default_factory=list)
    # (operation, body, expectation, line), still with columns.
    steps: list[tuple[str, str, Expectation, int]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[tuple[list[str], int]] = field(default_factory=list)


def read_transcript(path: Path) -> Transcript:
    """Read a file of the corpus.

    Raises:
        TranscriptError: It is malformed.
    """
    drafts: list[_Draft] = []
    defaults = {"source": "", "table": "none"}
    for number, text in _logical_lines(path.read_text(encoding="utf-8")):
        try:
            _read_line(drafts, defaults, number, text)
        except ValueError as error:
            raise TranscriptError(f"{path}:{number}: {error}") from error
    setup: Case | None = None
    cases: list[Case] = []
    for draft in drafts:
        try:
            made = list(_finish(draft))
        except ValueError as error:
            raise TranscriptError(f"{path}:{draft.line}: {error}") from error
        if draft.name == "setup":
            setup = made[0]
        else:
            cases.extend(made)
    return Transcript(path, setup, tuple(cases))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their indented continuations joined by newlines; comments and blank lines dropped."""
    pending: tuple[int, str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("# ") or line == "#":
            continue
        if line[0] in " \t":
            if pending is None:
                raise TranscriptError(f"line {number}: a continuation of nothing")
            pending = (pending[0], pending[1] + "\n" + line.strip())
            continue
        if pending is not None:
            yield pending
        pending = (number, line.rstrip())
    if pending is not None:
        yield pending


def _read_line(drafts: list[_Draft], defaults: dict[str, str], number: int, text: str) -> None:
    if text.startswith("-- ") or text == "setup":
        name = text.removeprefix("-- ")
        flags = []
        while match := _FLAG.search(name):
            flags.append(match[1])
            name = name[: match.start()]
        drafts.append(_Draft(name, number, defaults["source"], defaults["table"], flags))
        return
    for member in ("source", "table"):
        if text.startswith(member + ":"):
            value = " ".join(text.removeprefix(member + ":").split())
            if drafts and not drafts[-1].steps:
                setattr(drafts[-1], member, value)
            else:
                defaults[member] = value
            return
    if not drafts:
        raise ValueError("a step before any case")
    draft = drafts[-1]
    if text.startswith("with "):
        head, *rows = text.split("\n")
        draft.columns = [column.strip() for column in head.removeprefix("with ").split(" | ")]
        draft.rows = [
            ([cell.strip() for cell in _CELL_END.split(row)], number + offset)
            for offset, row in enumerate(rows, 1)
        ]
        return
    if text[0] in "=~!":
        if not draft.steps:
            raise ValueError("an answer without a request")
        operation, body, before, line = draft.steps[-1]
        if before.kind.startswith("error"):
            expected = replace(before, members=text[1:].strip())
        else:
            expected = _expectation(text)
        draft.steps[-1] = (operation, body, expected, line)
        return
    match = _OPERATION.fullmatch(text)
    if match is None:
        raise ValueError(f"cannot read {text!r}")
    draft.steps.append((match[1], match[2] or "{}", Expectation("ok"), number))


def _expectation(text: str) -> Expectation:
    if text.startswith("!* "):
        code, _, rest = text[3:].partition("\n")
        return Expectation("error_list", rest, code.strip())
    if text[0] == "!":
        kind: ExpectationKind = "error_pattern" if text.startswith("!/") else "error"
        code, _, message = text[2 if kind == "error" else 3 :].partition(":")
        # A message continued on further lines is one line.
        return Expectation(kind, " ".join(message.strip().split("\n")), code.strip())
    return Expectation("exact" if text[0] == "=" else "partial", text[1:].strip())


def _finish(draft: _Draft) -> Iterator[Case]:
    if not draft.steps:
        raise ValueError(f"case {draft.name!r} asks nothing")
    if not draft.source and draft.name != "setup":
        raise ValueError(f"case {draft.name!r} names no source")
    if not draft.columns:
        yield _case(draft, {}, draft.line)
        return
    made = []
    for cells, line in draft.rows:
        if len(cells) != len(draft.columns):
            raise ValueError(f"line {line}: {len(cells)} cells for {len(draft.columns)} columns")
        made.append(_case(draft, dict(zip(draft.columns, cells, strict=True)), line))
    names = [case.name for case in made]
    for case, (cells, _) in zip(made, draft.rows, strict=True):
        if names.count(case.name) > 1:
            yield replace(case, name=f"{case.name} [{' | '.join(cells)[:100]}]")
        else:
            yield case


def _case(draft: _Draft, row: dict[str, str], line: int) -> Case:
    def fill(text: str) -> str:
        return _COLUMN.sub(lambda match: row.get(match[1] or match[2], match[0]), text)

    steps = tuple(
        Step(
            fill(operation),
            fill(body),
            Expectation(e.kind, fill(e.text), fill(e.code), fill(e.members)),
            at,
        )
        for operation, body, e, at in draft.steps
    )
    name = fill(draft.name)
    open_flags = [flag for flag in draft.flags if flag.startswith("open: ")]
    return Case(
        name=name,
        steps=steps,
        source=draft.source,
        table=fill(draft.table),
        unsure="unsure" in draft.flags,
        http_only="http" in draft.flags,
        still_open=open_flags[0].removeprefix("open: ") if open_flags else "",
        line=line,
    )


# --- text to values --------------------------------------------------------------------------------------


def fill_in(text: str, placeholders: dict[str, str]) -> str:
    """Replace `<name>` by its value and `<text*3>` by the text three times over."""
    for name, value in placeholders.items():
        text = text.replace(f"<{name}>", value)
    return _REPEAT.sub(lambda match: match[1] * int(match[2]), text)


def parse_relaxed(text: str) -> Any:
    """JSON whose keys need no quotes (`{Key: {pk: {S: "a"}}}`) and that may say `@maps(31)` or `@lists(31)`:
    an attribute value wrapped in that many maps or lists.

    Raises:
        ValueError: It is no JSON.
    """
    strict = _TOKEN.sub(lambda m: m[0] if m[1] is None else f'"{m[1]}"', text)
    strict = _NEST.sub(lambda m: _nested(m[1], int(m[2])), strict)
    try:
        return json.loads(strict)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error}: {strict}") from error


def _nested(kind: str, levels: int) -> str:
    if kind == "maps":
        return '{"M":{"a":' * levels + '{"S":"x"}' + "}}" * levels
    return '{"L":[' * levels + '{"S":"x"}' + "]}" * levels
