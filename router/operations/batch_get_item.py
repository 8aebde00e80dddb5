"""BatchGetItem: up to 100 items of one or more tables by their keys, each read by itself, in parallel."""

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec

from datamodel.errors import DynamoDBError, ValidationError
from datamodel.expressions import Projection
from datamodel.items import Item, decode_item, encode_item, normalise_item
from datamodel.key_encoding import check_key, encode_key
from datamodel.limits import (
    BATCH_GET_KEYS_MAX,
    BATCH_PARTITION_SIZE_BYTES_MAX,
    BATCH_SIZE_BYTES_MAX,
)
from datamodel.requests import BatchGetItemInput, KeysAndAttributes
from datamodel.stored_items import HEADER_SIZE, record_size
from proto.messages import Answer, Get, Value
from router.batches import DUPLICATE_KEYS, Part, with_tables
from router.capacity import consumed_capacities, read_units
from router.context import Call
from router.partition_map import TableEntry
from router.projections import (
    check_projection_parameters,
    check_projections_together,
    read_projection,
)

READS_AT_ONCE_MAX: Final = 25
"""Reads under way in one partition: more of them would fetch much that is given back as too much."""

_encode = msgspec.json.encode


@dataclass(slots=True)
class _Wanted:
    """What is wanted of one table.

    Attributes:
        reference: The table's name or ARN, as the client gave it.
        asked: That part of the request.
        keys: The same keys, normal.
        projection: What to keep of each item, None for all of it.
        found: For each key what was found: JSON of the item, None if there is none (or no answer yet).
        unprocessed: Positions of keys that were not read.
        units: Read capacity consumed.
        is_read: Whether any key was.
    """

    reference: str
    asked: KeysAndAttributes
    keys: list[Item]
    projection: Projection | None
    found: list[bytes | None] = field(init=False)
    unprocessed: set[int] = field(default_factory=set)
    units: float = 0.0
    is_read: bool = False

    def __post_init__(self) -> None:
        self.found = [None] * len(self.keys)


def handle(request: BatchGetItemInput, call: Call) -> None:
    """Check everything that needs no table, find the tables, read."""
    if not request.RequestItems:
        raise ValidationError("The requestItems parameter is required for BatchGetItem")
    check_projections_together(list(request.RequestItems.values()))
    count = 0
    tables = []
    for reference, asked in request.RequestItems.items():
        check_projection_parameters(asked)
        projection = read_projection(asked)
        keys = []
        seen = set()
        for raw in asked.Keys:
            key, _ = normalise_item(raw)
            keys.append(key)
            encoded = _encode(sorted(key.items()))
            if encoded in seen:
                raise ValidationError(DUPLICATE_KEYS)
            seen.add(encoded)
            count += 1
            if count > BATCH_GET_KEYS_MAX:
                raise ValidationError("Too many items requested for the BatchGetItem call")
        tables.append(_Wanted(reference, asked, keys, projection))
    batch = _Batch(call, request.ReturnConsumedCapacity, tables)
    with_tables(call, list(request.RequestItems), batch.start)


class _Lane:
    """The keys of one partition: so many at a time, until all are read or it has given enough.

    Attributes:
        queue: (table's entry, table, position of the key) still to be read.
        in_flight: Reads under way.
        size: Bytes of items read.
        is_filling: Whether `_Batch.fill` is at work on it (answers may come while it sends).
    """

    __slots__ = ("in_flight", "is_filling", "queue", "size")

    def __init__(self) -> None:
        self.queue: deque[tuple[TableEntry, _Wanted, int]] = deque()
        self.in_flight = 0
        self.size = 0
        self.is_filling = False


class _Batch:
    """A batch under way."""

    __slots__ = ("_call", "_error", "_left", "_show", "_size", "_tables")

    def __init__(self, call: Call, show: str | None, tables: list[_Wanted]) -> None:
        self._call = call
        self._show = show
        self._tables = tables
        self._left = 0
        self._size = 0
        self._error: DynamoDBError | None = None

    def start(self, entries: list[TableEntry]) -> None:
        """Check against the tables, then read."""
        lanes: dict[int, _Lane] = {}
        seen: set[bytes] = set()
        for wanted, entry in zip(self._tables, entries, strict=True):
            schema = entry.schema
            if wanted.projection is not None:
                entry.check_scalar_keys(wanted.projection.nested_attributes)
            for position, key in enumerate(wanted.keys):
                check_key(schema, key)
                encoded = encode_key(entry.table_id, schema, key)
                if encoded in seen:  # of a table that is named twice, by name and by ARN
                    raise ValidationError(DUPLICATE_KEYS)
                seen.add(encoded)
                group = entry.group_of(encoded)
                lanes.setdefault(group, _Lane()).queue.append((entry, wanted, position))
                self._left += 1
        for lane in lanes.values():
            self._fill(lane)

    def _fill(self, lane: _Lane) -> None:
        """Send what a lane may send now."""
        if lane.is_filling:
            return
        lane.is_filling = True
        while lane.queue and lane.in_flight < READS_AT_ONCE_MAX:
            if lane.size >= BATCH_PARTITION_SIZE_BYTES_MAX or self._size >= BATCH_SIZE_BYTES_MAX:
                self._give_back(lane)
                return
            entry, wanted, position = lane.queue.popleft()
            strong = wanted.asked.ConsistentRead is True
            make = partial(self._get, wanted.keys[position], strong)
            done = partial(self._read, lane, wanted, position)
            lane.in_flight += 1
            Part(self._call, entry, make, done, strong).send()
        lane.is_filling = False

    def _give_back(self, lane: _Lane) -> None:
        """Read no more of a lane."""
        for _, wanted, position in lane.queue:
            wanted.unprocessed.add(position)
        count = len(lane.queue)
        lane.queue.clear()
        self._ended(count)

    def _get(self, key: Item, strong: bool, entry: TableEntry) -> Get:
        check_key(entry.schema, key)
        encoded = encode_key(entry.table_id, entry.schema, key)
        call = self._call
        next_id = call.services.client.next_id()
        return Get(next_id, entry.group_of(encoded), encoded, strong, call.timeout_ms)

    def _read(
        self,
        lane: _Lane,
        wanted: _Wanted,
        position: int,
        entry: TableEntry,
        outcome: Answer | DynamoDBError,
    ) -> None:
        """A key's answer."""
        lane.in_flight -= 1
        if isinstance(outcome, DynamoDBError):
            if not outcome.retryable:
                raise outcome
            self._error = outcome
            wanted.unprocessed.add(position)
        else:
            assert isinstance(outcome, Value)
            record = outcome.value
            size = 0 if record is None else record_size(record)
            if (
                lane.size >= BATCH_PARTITION_SIZE_BYTES_MAX
                or self._size + size > BATCH_SIZE_BYTES_MAX
            ):
                wanted.unprocessed.add(position)
            else:
                lane.size += size
                self._size += size
                units = read_units(size, wanted.asked.ConsistentRead is True)
                entry.usage.read_units += units
                wanted.units += units
                wanted.is_read = True
                if record is not None:
                    body = record[HEADER_SIZE:]
                    if wanted.projection is not None:
                        body = encode_item(wanted.projection.apply(decode_item(body)))
                    wanted.found[position] = body
        self._fill(lane)
        self._ended(1)

    def _ended(self, count: int) -> None:
        """So many more keys are read or given back."""
        self._left -= count
        if not self._left:
            self._finish()

    def _finish(self) -> None:
        tables = self._tables
        if self._error is not None and not any(wanted.is_read for wanted in tables):
            self._call.fail(self._error)
            return
        responses = b",".join(
            b"%b:[%b]" % (_encode(wanted.reference), b",".join(filter(None, wanted.found)))
            for wanted in tables
        )
        unprocessed: dict[str, Any] = {
            wanted.reference: msgspec.structs.replace(
                wanted.asked, Keys=[wanted.asked.Keys[i] for i in sorted(wanted.unprocessed)]
            )
            for wanted in tables
            if wanted.unprocessed
        }
        capacity = consumed_capacities(
            self._show, [(wanted.reference, wanted.units) for wanted in tables if wanted.is_read]
        )
        self._call.succeed(
            b'{"Responses":{%b},"UnprocessedKeys":%b%b}'
            % (responses, _encode(unprocessed), b"," + capacity if capacity else b"")
        )
