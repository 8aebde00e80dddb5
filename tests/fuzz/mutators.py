"""Breaks requests: their structure, their values, the grammar of what they express, the text of their JSON.

Everything is drawn from the `random.Random` that is passed in, so a seed gives the same mutants again.
"""

import copy
import json
import random
import re
from typing import Any, Final, TypeAlias

from tests.fuzz.corpus import EXPRESSIONS, KEYS, Corpus, Seed

TYPES: Final = ("S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS")
PAGE_TOKEN: Final = "@token@"
"""Stands for the last NextToken that the tables in question gave."""
BODY_LENGTH_MAX: Final = 4_000_000

NUMBERS: Final = (
    "0", "-0", "1", "-1", "007", "+1", "1e0", "1E+125", "9.9999999999999999999999999999999999999E+125",
    "1E126", "1E-130", "-1E-130", "1E-131", "1e999999999", "1e-999999999", "1e" + "9" * 400,
    "0e" + "9" * 400, "1" * 38, "1" * 39, "1" * 10_000, "0." + "0" * 200 + "1", "0" * 5000 + "1",
    "1" + "0" * 125, "1" + "0" * 126, "1" + "0" * 5000 + "e-5000", "", " ", "1 ", " 1", "1_000", "0x10",
    "٣", "NaN", "-nan", "sNaN", "Infinity", "-inf", "1e", "e1", ".", "-", "+", "--1", "1.2.3", "1,5", "1\n",
    "\x00", "1.5", ".5", "5.", "1e1.5", "1e+ 5",
)  # fmt: skip
STRINGS: Final = (
    "", "x", " ", "\x00", "\n", "'", '"', "\\", "\u00e9", "e\u0301", "\u2028", "\ufeff", "\uffff",
    "\U0001f600", "\ud800", "\udfff\ud800", "a" * 255, "a" * 256, "a" * 1025, "a" * 2049, "\u20ac" * 700,
    "a" * 65_536, "%s%n{0}", "null", "true", "NONE", "ALL", "ALL_OLD", "UPDATED_NEW", "TOTAL", "INDEXES",
    "COUNT", "SPECIFIC_ATTRIBUTES", "OR", "AND", "IN", "EQ", "NE", "NOT_CONTAINS", "ADD", "PUT", "DELETE",
    "HASH", "RANGE", "pk", "sk", "all", "keys", "AAEC", "AAE=", "AA==", "AAE", "*", PAGE_TOKEN,
    "arn:aws:dynamodb:us-east-1:000000000000:table/x",
    "arn:aws:dynamodb:us-east-1:000000000000:table/x/index/y", "arn:aws:s3:::x",
)  # fmt: skip
SCALARS: Final = (
    None, True, False, 0, 1, -1, 2, 25, 100, 101, 1000, 1 << 31, -(1 << 31) - 1, 1 << 63, 1 << 64, 10**400,
    0.0, 1.0, 1.5, -0.0, 1e308, [], {}, [[]], [{}], [None], {"": None},
)  # fmt: skip
TOKENS: Final = (
    "(", ")", "((", "))", ",", ".", "[", "]", "[0]", "[1]", "[99999999999999999999]", "[-1]", "[*]", "+",
    "-", "=", "<>", "<", ">=", "!=", "AND", "OR", "NOT", "BETWEEN", "IN", "SET", "REMOVE", "ADD", "DELETE",
    "size", "contains", "begins_with", "attribute_exists", "attribute_not_exists", "attribute_type",
    "if_not_exists", "list_append", "pk", "sk", "a", "m", "l", "#n", ":v", "#", ":", "#0", ":0", "size(a)",
    "m.l[0].x", "\x00", "\u00e9", "'", '"', "`", "--", "/*", "*/", ";", "?", "<<", ">>", "{", "}", "|",
    "\t", "1", "1e5", "''", "'x'", "\"pk\"", "SELECT", "FROM", "WHERE", "INSERT", "INTO", "VALUE", "UPDATE",
    "RETURNING", "ALL", "OLD", "NEW", "MODIFIED", "*", "IS", "MISSING", "NULL", "LIKE", "EXISTS", "ORDER",
    "BY", "DESC", "LIMIT", "set_add", "set_delete", "ON", "CONFLICT", "DO", "NOTHING", "TRUE", "JOIN", "AS",
    "AT", "UNPIVOT",
)  # fmt: skip

_CONDITIONS: Final = ("ConditionExpression", "FilterExpression", "KeyConditionExpression")
_TOKEN: Final = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[#:]?\w+|<>|<=|>=|!=|<<|>>|\s+|.", re.DOTALL
)
_NAME: Final = re.compile(r"#\w+")
_VALUE: Final = re.compile(r":\w+")
_DEEP: Final = re.compile(r'"@deep:(L|M|A|O):(\d+)@"')

Place: TypeAlias = tuple[Any, Any, str]
"""A container, the key or index in it, and the member of the request that all this is part of."""


class Mutator:
    """Makes mutants from a corpus."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def mutant(self, seed: Seed, chance: random.Random) -> str:
        """The text of a body, broken in one or several places; now and then not at all."""
        try:
            document = json.loads(seed.body)
        except ValueError:
            return _broken_text(seed.body, chance)
        if isinstance(document, dict):
            for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 6))):
                document = self._mutated(document, seed, chance)
                if not isinstance(document, dict):
                    break
            if isinstance(document, dict) and chance.random() < 0.5:
                self._complete(document, chance)
        text = _DEEP.sub(lambda match: _nested(match[1], int(match[2])), json.dumps(document))
        if len(text) > BODY_LENGTH_MAX:
            return seed.body
        return _broken_text(text, chance) if chance.random() < 0.04 else text

    # --- structure ---

    def _mutated(self, document: dict[str, Any], seed: Seed, chance: random.Random) -> Any:
        document = copy.deepcopy(document)
        roll = chance.random()
        if roll < 0.02:
            return chance.choice(SCALARS)
        if roll < 0.04 and "Statement" in document:
            document["NextToken"] = PAGE_TOKEN
            return document
        if roll < 0.14:
            self._cross(document, seed, chance)
            return document
        places = _places(document)
        if not places:
            return {"TableName": chance.choice(STRINGS)}
        container, key, member = chance.choice(places)
        value = container[key]
        if isinstance(value, str) and member in EXPRESSIONS and roll < 0.9:
            container[key] = self.expression(member, value, chance)
        elif roll < 0.26:
            del container[key]
        elif roll < 0.34 and isinstance(container, dict):
            container[chance.choice((*STRINGS[:12], f"{key}x", *TYPES))] = container.pop(key)
        elif roll < 0.42 and isinstance(container, list):
            container[:] = container * chance.choice((0, 2, 3, 30))
        elif roll < 0.5 and isinstance(container, list):
            chance.shuffle(container)
            container.append(self._value(chance))
        else:
            container[key] = self._replacement(value, chance)
        return document

    def _cross(self, document: dict[str, Any], seed: Seed, chance: random.Random) -> None:
        """A member of another request of the operation: old parameters beside new ones, foreign keys."""
        other = json.loads(_object(chance.choice(self._corpus.seeds[seed.operation]).body))
        if other:
            name = chance.choice(sorted(other))
            if name != "TableName" or chance.random() < 0.2:
                document[name] = other[name]

    def _replacement(self, value: Any, chance: random.Random) -> Any:
        """Mostly something of the same JSON type, or hardly anything would get past the first checks."""
        roll = chance.random()
        if roll < 0.03:
            levels = chance.choice((2, 31, 32, 33, 100, 3000))
            return f"@deep:{chance.choice('LMAO')}:{levels}@"
        if roll < 0.18:
            return copy.deepcopy(chance.choice((*SCALARS, *STRINGS, self._value(chance))))
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            near = (value + 1, value - 1, -value, value * 1000)
            return chance.choice((*near, *(s for s in SCALARS if type(s) is int)))
        if isinstance(value, str):
            if not value or roll < 0.5:
                return chance.choice(NUMBERS if value.isdecimal() else STRINGS)
            at = chance.randrange(len(value))
            return value[:at] + chance.choice(STRINGS[:16]) + value[at + chance.choice((0, 1)) :]
        if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in TYPES:
            return self._value(chance, value)
        return self._value(chance) if isinstance(value, dict) else copy.deepcopy(value)

    # --- attribute values ---

    def _value(self, chance: random.Random, value: dict[str, Any] | None = None) -> Any:
        """An attribute value, or something that comes near to one."""
        roll = chance.random()
        if value is not None and roll < 0.5:
            ((kind, content),) = value.items()
            if roll < 0.2:
                return {chance.choice(TYPES): content}
            if roll < 0.3:
                return {**value, chance.choice(TYPES): chance.choice(STRINGS)}
            if isinstance(content, list) and content:
                return {kind: [*content, chance.choice(content)]}
            return {"L": [value] * chance.choice((1, 2, 200))}
        if roll < 0.65:
            return copy.deepcopy(chance.choice(self._corpus.values))
        if roll < 0.75:
            return {"N": chance.choice(NUMBERS)}
        if roll < 0.8:
            return {"NS": [chance.choice(NUMBERS) for _ in range(chance.choice((0, 1, 2, 5)))]}
        if roll < 0.85:
            return {"S": chance.choice(KEYS)}
        if roll < 0.9:
            return {chance.choice(TYPES): chance.choice(STRINGS)}
        if roll < 0.95:
            return {"SS": [chance.choice(STRINGS) for _ in range(chance.choice((0, 1, 2, 100)))]}
        return {chance.choice(TYPES): copy.deepcopy(chance.choice(SCALARS))}

    # --- expressions and statements ---

    def expression(self, member: str, text: str, chance: random.Random) -> str:
        """Another expression near this one: tokens dropped, doubled, swapped, replaced, spliced with another's."""
        tokens = _TOKEN.findall(text)[:3000]
        for _ in range(chance.choice((1, 1, 2, 4))):
            roll = chance.random()
            at = chance.randrange(len(tokens) + 1)
            if roll < 0.2:
                del tokens[at : at + chance.choice((1, 1, 2, 5))]
            elif roll < 0.45:
                tokens[at : at + chance.choice((0, 1))] = [" ", chance.choice(TOKENS), " "]
            elif roll < 0.6 and tokens:
                other = chance.randrange(len(tokens))
                tokens.insert(at, tokens[other])
            elif roll < 0.8:
                donor = _TOKEN.findall(self._donor(member, chance))
                start = chance.randrange(len(donor) + 1)
                tokens[at:] = donor[start:]
            elif roll < 0.85:
                depth = chance.choice((1, 2, 30, 300, 1500))
                tokens = ["("] * depth + tokens + [")"] * depth
            elif roll < 0.9:
                tokens = ["NOT "] * chance.choice((1, 2, 50, 900)) + tokens
            elif roll < 0.96 and tokens:
                start = chance.randrange(len(tokens))
                tokens[at:at] = tokens[start : start + 8] * chance.choice((2, 20, 120))
            else:
                tokens = [chance.choice((str.upper, str.lower, str.title))(t) for t in tokens]
        return "".join(tokens)[:20_000]

    def _donor(self, member: str, chance: random.Random) -> str:
        if member in _CONDITIONS:
            member = chance.choice(_CONDITIONS)
        return chance.choice(self._corpus.expressions[member])

    def _complete(self, document: dict[str, Any], chance: random.Random) -> None:
        """Define exactly the placeholders that are used, so that the mutant gets past that check."""
        texts = [text for name in EXPRESSIONS if isinstance(text := document.get(name), str)]
        statement = document.get("Statement")
        if isinstance(statement, str):
            document["Parameters"] = [self._value(chance) for _ in range(statement.count("?") % 50)]
            if not document["Parameters"]:
                del document["Parameters"]
            return
        for member, pattern in (
            ("ExpressionAttributeNames", _NAME),
            ("ExpressionAttributeValues", _VALUE),
        ):
            used = sorted({name for text in texts for name in pattern.findall(text)})
            given = document.get(member)
            given = given if isinstance(given, dict) else {}
            make = self._name if pattern is _NAME else self._value
            found = {name: given[name] if name in given else make(chance) for name in used}
            if found:
                document[member] = found
            else:
                document.pop(member, None)

    @staticmethod
    def _name(chance: random.Random) -> str:
        return chance.choice(("pk", "sk", "a", "b", "m", "l", "s", "n", "a.b", "", "x y", "\u00e9"))


def _places(document: Any, member: str = "") -> list[Place]:
    """Everything in a document that can be replaced, with lists' elements thinned out."""
    found: list[Place] = []
    pending = [(document, member)]
    while pending:
        container, part = pending.pop()
        keys: list[Any] = (
            list(container) if isinstance(container, dict) else list(range(len(container)))
        )
        for key in keys[:40]:
            name = (
                part if isinstance(container, list) or (part and part not in _NESTS) else str(key)
            )
            found.append((container, key, name))
            if isinstance(container[key], dict | list):
                pending.append((container[key], name))
    return found


# Members inside which members of the request's own kind stand.
_NESTS: Final = frozenset(("RequestItems", "Statements", "TransactItems", "TransactStatements"))


def _object(body: str) -> str:
    """The body if it is a JSON object, else an empty one."""
    try:
        return body if isinstance(json.loads(body), dict) else "{}"
    except ValueError:
        return "{}"


def _nested(kind: str, levels: int) -> str:
    before, after = {
        "L": ('{"L":[', "]}"),
        "M": ('{"M":{"a":', "}}"),
        "A": ("[", "]"),
        "O": ('{"a":', "}"),
    }[kind]
    return before * levels + '{"S":"x"}' + after * levels


def _broken_text(text: str, chance: random.Random) -> str:
    """JSON with its text cut, spliced and strewn with what is no JSON."""
    at, end = sorted(chance.randrange(len(text) + 1) for _ in range(2))
    roll = chance.random()
    if roll < 0.2:
        return text[:at] + text[end:]
    if roll < 0.35:
        return text[:end] + text[at:]
    if roll < 0.45:
        return text[:at]
    if roll < 0.5:
        return chance.choice(("\ufeff", "  \n", "\x00", "/**/", ")]}'")) + text
    if roll < 0.55:
        return text + chance.choice(("}", " ", "\x00", text[:300], ","))
    junk = (
        "NaN",
        "1e999",
        "-",
        "\\u12",
        '\\ud800"',
        "'",
        ",,",
        "{",
        "[",
        "\x01",
        "undefined",
        "01",
        "\xff",
        '"":',
    )
    return text[:at] + chance.choice(junk) + text[at + chance.choice((0, 1)) :]
