"""A bounded memory of parsed expressions: clients send the same few texts over and over."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, Generic, TypeVar

Parsed = TypeVar("Parsed")
_Names = tuple[tuple[str, str], ...]

ENTRIES_MAX: Final = 1024
"""Expressions remembered of each kind, the least recently used forgotten first."""
LARGE_ENTRIES_MAX: Final = 64
"""The same for large ones: their trees take up to some hundred kilobytes each."""
LARGE_LENGTH: Final = 1024
"""Characters of text and names together from which an expression is large."""
LENGTH_MAX: Final = 16 * 1024
"""Characters beyond which an expression is not remembered at all."""


class ParseCache(Generic[Parsed]):
    """Calls `parse(kind, text, names)` once per distinct arguments, as far as memory allows.

    Errors are not remembered. Results must be immutable, for they are shared.
    """

    def __init__(self, parse: Callable[[str, str, Mapping[str, str]], Parsed]) -> None:
        def parse_key(kind: str, text: str, names: _Names) -> Parsed:
            return parse(kind, text, dict(names))

        self._parse = parse
        self._small = lru_cache(ENTRIES_MAX)(parse_key)
        self._large = lru_cache(LARGE_ENTRIES_MAX)(parse_key)

    def get(self, kind: str, text: str, names: Mapping[str, str] | None) -> Parsed:
        """What `parse` returns or raises for these arguments."""
        length = len(text)
        if not names:
            key: _Names = ()
        else:
            key = tuple(names.items())
            for alias, name in key:
                length += len(alias) + len(name)
        if length < LARGE_LENGTH:
            return self._small(kind, text, key)
        if length <= LENGTH_MAX:
            return self._large(kind, text, key)
        return self._parse(kind, text, names or {})
