"""Projections: ProjectionExpression, and the parts of an item that an update touched.

A projection keeps the shape of the item: maps pruned to the named members, lists to the named elements in
their original order, without gaps. What is not there is left out, and so are maps and lists of which nothing
is left.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from datamodel.attribute_values import AttributeValue
from datamodel.expressions.checker import check_projection
from datamodel.expressions.parse_cache import ParseCache
from datamodel.expressions.parser import parse_projection_text
from datamodel.expressions.syntax_tree import Path

# What to keep of a map or list: the whole member (None), or parts of it.
_Kept: TypeAlias = dict[str | int, "_Kept | None"]


class Projection:
    """A set of paths that do not overlap. Immutable; shared by all requests with the same text and names.

    Attributes:
        names_used: Placeholders for names in it, `#` included.
        top_level_attributes: The item's attributes that it reads, each once, in the order of the text.
        nested_attributes: Those of them into which a path leads.
    """

    __slots__ = ("_kept", "_whole", "names_used", "nested_attributes", "top_level_attributes")

    def __init__(self, paths: Iterable[Path], names_used: frozenset[str] = frozenset()) -> None:
        """A projection to paths none of which is, or leads through, another."""
        kept: _Kept = {}
        for path in paths:
            level = kept
            for element in path.elements[:-1]:
                below = level.setdefault(element, {})
                assert below is not None, "paths of a projection do not overlap"
                level = below
            level[path.elements[-1]] = None
        self._kept = kept
        self._whole = all(below is None for below in kept.values())
        self.names_used = names_used
        self.top_level_attributes = tuple(str(name) for name in kept)
        self.nested_attributes = tuple(
            str(name) for name, below in kept.items() if below is not None
        )

    def apply(self, item: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
        """The named parts of a normal item. The result shares values with it."""
        if self._whole:
            return {name: item[name] for name in self.top_level_attributes if name in item}
        return _members(item, self._kept)


def _members(members: Mapping[str, AttributeValue], kept: _Kept) -> dict[str, AttributeValue]:
    found = {}
    for name, below in kept.items():
        if not isinstance(name, str):
            continue
        value = members.get(name)
        if value is not None:
            part = value if below is None else _part(value, below)
            if part is not None:
                found[name] = part
    return found


def _part(value: AttributeValue, kept: _Kept) -> AttributeValue | None:
    """What is kept of a map or list; None if nothing. As deep as a document path at most."""
    if "M" in value:
        members = _members(value["M"], kept)
        return {"M": members} if members else None
    if "L" not in value:
        return None
    elements = value["L"]
    parts = []
    for index in sorted(step for step in kept if isinstance(step, int)):
        if index >= len(elements):
            break
        below = kept[index]
        part = elements[index] if below is None else _part(elements[index], below)
        if part is not None:
            parts.append(part)
    return {"L": parts} if parts else None


def _parse(kind: str, text: str, names: Mapping[str, str]) -> Projection:
    paths, usage = check_projection(kind, parse_projection_text(kind, text), names)
    return Projection(paths, usage.names_used)


_cache = ParseCache(_parse)


def parse_projection(text: str, names: Mapping[str, str] | None) -> Projection:
    """Parse and check a projection expression.

    Args:
        text: The expression.
        names: `ExpressionAttributeNames`.

    Raises:
        ValidationError: With the service's text.
    """
    return _cache.get("ProjectionExpression", text, names)
