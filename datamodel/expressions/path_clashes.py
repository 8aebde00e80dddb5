"""Paths that cannot be changed, or projected, by one expression."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from datamodel.expressions.syntax_tree import Path


class Clash(NamedTuple):
    """Two paths that clash, in the order of the text.

    Attributes:
        what: `overlap` if one is, or leads through, the other; `conflict` if one takes for a list what the
            other takes for a map.
        one: The first.
        two: The second.
    """

    what: Literal["overlap", "conflict"]
    one: Path
    two: Path


class _Branch:
    """A node in the tree of the paths.

    Attributes:
        first: Index of the first path that leads here.
        end: Index of the path that ends here.
        branches: What follows, by element.
        first_by_kind: Index of the first path that goes on by name (str), by list index (int).
    """

    __slots__ = ("branches", "end", "first", "first_by_kind")

    def __init__(self, first: int) -> None:
        self.first = first
        self.end: int | None = None
        self.branches: dict[str | int, _Branch] = {}
        self.first_by_kind: dict[type, int] = {}


def find_clash(paths: Sequence[Path]) -> Clash | None:
    """The clash to report: the first overlap in the order of the text, else the first conflict.

    Takes time in proportion to the length of all paths together.
    """
    root = _Branch(0)
    conflict: Clash | None = None
    for index, path in enumerate(paths):
        branch = root
        for element in path.elements:
            if branch.end is not None:
                return Clash("overlap", paths[branch.end], path)
            kind = type(element)
            if conflict is None:
                for other, first in branch.first_by_kind.items():
                    if other is not kind:
                        conflict = Clash("conflict", paths[first], path)
            branch.first_by_kind.setdefault(kind, index)
            following = branch.branches.get(element)
            if following is None:
                following = branch.branches[element] = _Branch(index)
            branch = following
        if branch.end is not None or branch.branches:
            return Clash("overlap", paths[branch.first], path)
        branch.end = index
    return conflict
