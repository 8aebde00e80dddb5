"""Compares an answer with what a transcript expects of it.

A list under a key written with a star (`Items*`) compares in any order. Sets do not: the service has an order of
its own for them. A string `<any>`, `<string>`, `<number>`, `<uuid>` or `<arn>` in an expected answer stands for
whatever value of that kind.
"""

import re
from collections.abc import Callable
from typing import Any, Final

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_WILDCARDS: Final[dict[str, Callable[[Any], bool]]] = {
    "<any>": lambda value: value is not None,
    "<string>": lambda value: isinstance(value, str) and value != "",
    "<number>": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "<uuid>": lambda value: isinstance(value, str) and _UUID.fullmatch(value) is not None,
    "<arn>": lambda value: isinstance(value, str) and value.startswith("arn:aws:dynamodb:"),
}


def difference(expected: Any, actual: Any, *, exact: bool, where: str = "") -> str | None:
    """Where and how an answer differs first from the expected one; None if it does not.

    Args:
        expected: With wildcards and starred keys.
        actual: The answer.
        exact: Whether members that are not expected count.
        where: Path of the two in the whole answer.
    """
    if isinstance(expected, str) and expected in _WILDCARDS:
        return None if _WILDCARDS[expected](actual) else f"{where}: {expected} is not {actual!r}"
    if isinstance(expected, dict):
        return _object_difference(expected, actual, exact=exact, where=where)
    if isinstance(expected, list):
        if not isinstance(actual, list) or len(expected) != len(actual):
            return f"{where}: expected {expected!r}, got {actual!r}"
        for index, (want, got) in enumerate(zip(expected, actual, strict=True)):
            found = difference(want, got, exact=exact, where=f"{where}[{index}]")
            if found is not None:
                return found
        return None
    if isinstance(expected, bool) is not isinstance(actual, bool) or expected != actual:
        return f"{where}: expected {expected!r}, got {actual!r}"
    return None


def _object_difference(
    expected: dict[str, Any], actual: Any, *, exact: bool, where: str
) -> str | None:
    if not isinstance(actual, dict):
        return f"{where}: expected {expected!r}, got {actual!r}"
    names = {name.removesuffix("*"): value for name, value in expected.items()}
    if exact and set(names) != set(actual):
        missing, extra = sorted(set(names) - set(actual)), sorted(set(actual) - set(names))
        return f"{where}: lacks {missing}, has {extra} besides"
    for name, want in expected.items():
        unordered = name.endswith("*")
        plain = name.removesuffix("*")
        if plain not in actual:
            return f"{where}.{plain}: is missing"
        compare = _unordered_difference if unordered else difference
        found = compare(want, actual[plain], exact=exact, where=f"{where}.{plain}")
        if found is not None:
            return found
    return None


def _unordered_difference(
    expected: list[Any], actual: Any, *, exact: bool, where: str
) -> str | None:
    if not isinstance(actual, list) or len(actual) != len(expected):
        return f"{where}: expected in any order {expected!r}, got {actual!r}"
    left = list(actual)
    for want in expected:
        for index, got in enumerate(left):
            if difference(want, got, exact=exact) is None:
                del left[index]
                break
        else:
            return f"{where}: {want!r} is not in {actual!r}"
    return None


_COUNTED: Final = re.compile(r"(\d+) validation errors? detected: (.*)", re.DOTALL)


def message_matches(expected: str, actual: str, *, loose: bool) -> bool:
    """Whether an error's message is the expected one.

    Args:
        expected: The message.
        actual: What came.
        loose: Allow for either wording while the service rolls one out, since June 2026: what differs between
            them is left out of both (`_DIFFERS`).
    """
    if expected == actual:
        return True
    if not loose:
        return False
    return _plain(expected) == _plain(actual)


# What the two wordings have differently: the envelope, words around a value, the value and name of a member,
# values of an enum and members of a set.
_DIFFERS: Final = (
    (re.compile(r"^1 validation error detected: "), ""),
    (re.compile(r"^ExpressionAttributeValues contains invalid value: (.*) for key :\w+$"), r"\1"),
    (re.compile(r"^(.* can only be specified when using expressions): .* null$"), r"\1"),
    (re.compile(r"Value (?:null |'.*?' )?at '[^']*' failed"), "Failed"),
    (re.compile(r"enum value set: \[[^]]*\]"), "enum value set"),
    (
        re.compile(r"(?:One or more parameter values were invalid: )?(Input collection) \[.*\]"),
        r"\1",
    ),
)


def _plain(message: str) -> str:
    for pattern, replacement in _DIFFERS:
        message = pattern.sub(replacement, message)
    return message.rstrip(";: ")


def constraint_list_matches(expected: str, actual: str, *, loose: bool) -> bool:
    """Whether a message lists exactly these broken constraints, one a line, in any order.

    With `loose` one of them is enough: reworded regions stop at the first.
    """
    match = _COUNTED.fullmatch(actual)
    if match is None:
        return False
    want = sorted(line.strip() for line in expected.split("\n") if line.strip())
    got = sorted(match[2].split("; "))
    if loose and len(got) < len(want):
        return set(got) <= set(want)
    return want == got and int(match[1]) == len(want)
