"""What a write does to the local indexes of its table: the pure part of the leader's work, beside `evaluation`.

An entry of an index is an item of its own in the same item collection: it is part of the same partition, and it
changes in the same log entry as the item that it stands for, so that no reader ever sees one without the other.
With the entries goes the size of the whole collection, which is limited in tables with local indexes.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from datamodel.attribute_values import equal
from datamodel.errors import ItemCollectionSizeLimitExceededError, ValidationError
from datamodel.items import Item, decode_item, encode_item, item_size
from datamodel.key_encoding import collection_size_key, encode_entry_key
from datamodel.limits import ITEM_SIZE_BYTES_MAX, WRITE_UNIT_BYTES
from datamodel.local_indexes import check_item_index_keys, check_updated_index_keys, project
from proto.messages import UPDATE, Action, LocalIndexRule
from storagenode.replicas.log_entries import ItemMutation

Stored: TypeAlias = tuple[bytes, int]
"""An item as it is stored: its body and its size in bytes."""

Reader: TypeAlias = Callable[[bytes], Stored | None]


class Indexing:
    """The indexes under one `Write`. Its actions see the state before it, its collections grow by all of them.

    Attributes:
        deltas: Changes of count and bytes of the entries of each index in turn.
    """

    __slots__ = ("_entries", "_read", "_rules", "_size_max", "_sizes", "deltas")

    def __init__(
        self, rules: Sequence[LocalIndexRule], read: Reader, collection_size_max: int
    ) -> None:
        """Begin.

        Args:
            rules: Of the table's indexes.
            read: The stored form of a key, None if there is none.
            collection_size_max: Bytes that a collection may grow to.
        """
        self._rules = rules
        self._read = read
        self._size_max = collection_size_max
        self._entries: list[ItemMutation] = []
        self._sizes: dict[bytes, int] = {}
        self.deltas = [0] * (2 * max(rule.number for rule in rules))

    def change(
        self, action: Action, old: Stored | None, new_body: bytes | None, new_size: int
    ) -> tuple[list[tuple[int, int]], int]:
        """Take the change of one item.

        Args:
            action: What changes it.
            old: The item before.
            new_body: The item after, None if there is none.
            new_size: Its size in bytes, 0 if there is none.

        Returns:
            (number, write units) of each index that changes, and the size in bytes of the collection after.

        Raises:
            ValidationError: The item has a value that an index's key cannot have, or is too large together with
                its entries.
            ItemCollectionSizeLimitExceededError: The collection would grow past the limit.
        """
        old_body, old_size = (None, 0) if old is None else old
        old_item = None if old_body is None else decode_item(old_body)
        new_item = None if new_body is None else decode_item(new_body)
        if new_item is not None:
            check = check_updated_index_keys if action.kind == UPDATE else check_item_index_keys
            check(self._rules, new_item)
        units: list[tuple[int, int]] = []
        growth = new_size - old_size
        whole_size = new_size
        for rule in self._rules:
            before = _entry(rule, action.key, old_item, old_body, old_size)
            after = _entry(rule, action.key, new_item, new_body, new_size)
            whole_size += 0 if after is None else after[3]
            if _same(before, after):
                continue
            used = 0
            entry_growth = 0
            if before is not None:
                entry_growth -= before[3]
                if after is None or after[0] != before[0]:
                    self._entries.append((before[0], None, 0))
                    used += _write_units(before[3])
            if after is not None:
                entry_growth += after[3]
                self._entries.append((after[0], after[2], after[3]))
                kept = before is not None and before[0] == after[0]
                larger = max(after[3], before[3]) if kept and before is not None else after[3]
                used += _write_units(larger)
            at = 2 * (rule.number - 1)
            self.deltas[at] += (after is not None) - (before is not None)
            self.deltas[at + 1] += entry_growth
            growth += entry_growth
            units.append((rule.number, used))
        if whole_size > ITEM_SIZE_BYTES_MAX:
            what = "Item size to update" if action.kind == UPDATE else "Item size"
            raise ValidationError(f"{what} has exceeded the maximum allowed size")
        return units, self._grow(collection_size_key(action.key), growth)

    def mutations(self) -> list[ItemMutation]:
        """What is to be written besides the items, once all changes are taken."""
        return self._entries + [
            (key, b"%d" % size if size else None, 0) for key, size in self._sizes.items()
        ]

    def _grow(self, key: bytes, growth: int) -> int:
        size = self._sizes.get(key)
        if size is None:
            stored = self._read(key)
            size = 0 if stored is None else int(stored[0])
        if growth:
            size += growth
            if growth > 0 and size > self._size_max:
                raise ItemCollectionSizeLimitExceededError
            self._sizes[key] = size
        return size


_Entry: TypeAlias = tuple[bytes, Item, bytes, int]
"""An entry: its key, attributes, body and size in bytes."""


def _entry(
    rule: LocalIndexRule, key: bytes, item: Item | None, body: bytes | None, size: int
) -> _Entry | None:
    """The entry of an item in an index; None if the item is not in it."""
    if item is None or rule.sort_name not in item:
        return None
    assert body is not None
    entry_key = encode_entry_key(key, rule.number, item[rule.sort_name])
    if rule.attributes is None:
        return entry_key, item, body, size
    projected = project(item, rule.attributes)
    return entry_key, projected, encode_item(projected), item_size(projected)


def _same(before: _Entry | None, after: _Entry | None) -> bool:
    """Whether nothing is to be written: no entry before and after, or the same."""
    if before is None or after is None:
        return before is after
    if before[0] != after[0] or before[3] != after[3]:
        return False
    return before[2] == after[2] or equal({"M": before[1]}, {"M": after[1]})


def _write_units(size_bytes: int) -> int:
    return -(-size_bytes // WRITE_UNIT_BYTES)


def added(figures: list[int], deltas: Sequence[int]) -> list[int]:
    """Figures of indexes after a change; a new list."""
    known = figures + [0] * (len(deltas) - len(figures))
    return [figure + delta for figure, delta in zip(known, deltas, strict=True)]
