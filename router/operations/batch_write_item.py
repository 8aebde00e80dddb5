"""BatchWriteItem: up to 25 puts and deletes in one or more tables, each by itself, in parallel.

Not atomic and in no order. What comes back as unprocessed was not done as far as anybody knows: a write whose
outcome got lost with a leader is among them, and sending it again is right in either case.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from datamodel.errors import DynamoDBError, ValidationError
from datamodel.items import Item, check_item_size, encode_item, normalise_item
from datamodel.key_encoding import KEY_MISMATCH, KeySchema, check_key, encode_key, key_of
from datamodel.limits import BATCH_WRITE_ACTIONS_MAX
from datamodel.local_indexes import check_item_index_keys
from datamodel.requests import BatchWriteItemInput, WriteRequest
from proto.messages import DELETE, PUT, Action, Answer, Write, Written
from router.batches import DUPLICATE_KEYS, Part, with_tables
from router.capacity import consumed_capacities, write_units
from router.context import Call
from router.partition_map import TableEntry
from router.write_path import SIZE, collection_metrics, index_units

_encode = msgspec.json.encode


@dataclass(slots=True)
class _Change:
    """One put or delete.

    Attributes:
        asked: That part of the request.
        item: The normal item to put, or the key to delete.
        body: The same as JSON.
        size: Of the item in bytes, 0 for a delete.
        is_put: Which of the two.
        is_unprocessed: Whether it could not be done for now.
        collection: JSON of its partition key once it is done, if metrics are asked for.
    """

    asked: WriteRequest
    item: Item
    body: bytes
    size: int
    is_put: bool
    is_unprocessed: bool = False
    collection: bytes | None = None

    def key(self, schema: KeySchema) -> Item:
        """Its key.

        Raises:
            ValidationError: It does not fit the schema.
        """
        if not self.is_put:
            key = self.item
        elif all(name in self.item for name in schema.names):
            key = key_of(schema, self.item)
        else:
            raise ValidationError(KEY_MISMATCH)
        check_key(schema, key)
        return key

    def action(self, entry: TableEntry) -> Action:
        """What the partition is asked to do."""
        check_item_size(self.size)
        key = encode_key(entry.table_id, entry.schema, self.key(entry.schema))
        if self.is_put and entry.local_indexes:
            check_item_index_keys(entry.local_indexes[::-1], self.item)
        return Action(PUT if self.is_put else DELETE, key, self.body, self.size)


@dataclass(slots=True)
class _Wanted:
    """What is wanted of one table; its name as the client gave it, and what became of its changes.

    `collections` are the metrics of item collections that changed, by the JSON of their partition keys.
    """

    reference: str
    changes: list[_Change]
    units: float = 0.0
    is_written: bool = False
    index_units: dict[str, float] = field(default_factory=dict)
    collections: dict[bytes, bytes] = field(default_factory=dict)

    def metrics_in_order(self) -> list[bytes]:
        """Metrics of collections, each once, in the order of the request, not of the answers."""
        names = dict.fromkeys(change.collection for change in self.changes)
        return [self.collections[name] for name in names if name is not None]


def handle(request: BatchWriteItemInput, call: Call) -> None:
    """Check everything that needs no table, find the tables, write."""
    if not request.RequestItems:
        raise ValidationError("The requestItems parameter is required for BatchWriteItem")
    count = 0
    tables = []
    for reference, requests in request.RequestItems.items():
        changes = []
        # The service's text; it means a request with neither or both of a put and a delete.
        if any((asked.PutRequest is None) is (asked.DeleteRequest is None) for asked in requests):
            raise ValidationError(
                "Supplied AttributeValue has more than one datatypes set, "
                "must contain exactly one of the supported datatypes"
            )
        for asked in requests:
            changes.append(_change(asked))
            count += 1
            if count > BATCH_WRITE_ACTIONS_MAX:
                raise ValidationError("Too many items requested for the BatchWriteItem call")
        tables.append(_Wanted(reference, changes))
    batch = _Batch(
        call,
        request.ReturnConsumedCapacity,
        tables,
        shows_collections=request.ReturnItemCollectionMetrics == SIZE,
    )
    with_tables(call, list(request.RequestItems), batch.start)


def _change(asked: WriteRequest) -> _Change:
    if asked.PutRequest is not None:
        item, size = normalise_item(asked.PutRequest.Item)
        return _Change(asked, item, encode_item(item), size, is_put=True)
    assert asked.DeleteRequest is not None, "checked before"
    key, _ = normalise_item(asked.DeleteRequest.Key)
    return _Change(asked, key, encode_item(key), 0, is_put=False)


class _Batch:
    """A batch under way."""

    __slots__ = ("_call", "_error", "_left", "_show", "_shows_collections", "_tables")

    def __init__(
        self, call: Call, show: str | None, tables: list[_Wanted], *, shows_collections: bool
    ) -> None:
        self._call = call
        self._shows_collections = shows_collections
        self._show = show
        self._tables = tables
        self._left = 0
        self._error: DynamoDBError | None = None

    def start(self, entries: Sequence[TableEntry]) -> None:
        """Check against the tables, then write."""
        parts: list[Part] = []
        seen: set[bytes] = set()
        for wanted, entry in zip(self._tables, entries, strict=True):
            for change in wanted.changes:
                action = change.action(entry)
                if action.key in seen:
                    raise ValidationError(DUPLICATE_KEYS)
                seen.add(action.key)
                parts.append(self._part(wanted, change, entry))
        self._left = len(parts)
        for part in parts:
            part.send()

    def _part(self, wanted: _Wanted, change: _Change, entry: TableEntry) -> Part:
        call = self._call
        client = call.services.client
        request_id = client.next_request_id()

        def make(current: TableEntry) -> Write:
            action = change.action(current)
            group = current.group_of(action.key)
            return Write(
                client.next_id(),
                group,
                request_id,
                [action],
                call.timeout_ms,
                current.local_indexes,
            )

        return Part(call, entry, make, partial(self._written, wanted, change))

    def _written(
        self,
        wanted: _Wanted,
        change: _Change,
        entry: TableEntry,
        outcome: Answer | DynamoDBError,
    ) -> None:
        """What became of one change."""
        if isinstance(outcome, DynamoDBError):
            if not outcome.retryable:
                raise outcome
            # That nobody knows whether a write was done is worse than that it was not: it decides the error.
            if self._error is None or outcome.http_status == 500:
                self._error = outcome
            change.is_unprocessed = True
        else:
            assert isinstance(outcome, Written)
            result = outcome.results[0]
            units = write_units(result.old_size, result.new_size)
            entry.usage.write_units += units
            wanted.units += units
            wanted.is_written = True
            for name, consumed in index_units(entry, result):
                entry.usage.write_units += consumed
                wanted.index_units[name] = wanted.index_units.get(name, 0.0) + consumed
            if self._shows_collections and result.collection_size is not None:
                partition_name = entry.schema.partition_name
                key = {partition_name: change.item[partition_name]}
                change.collection = _encode(key)
                wanted.collections[change.collection] = collection_metrics(
                    key, result.collection_size
                )
        self._left -= 1
        if not self._left:
            self._finish()

    def _finish(self) -> None:
        tables = self._tables
        if self._error is not None and not any(wanted.is_written for wanted in tables):
            self._call.fail(self._error)
            return
        unprocessed = {
            wanted.reference: left
            for wanted in tables
            if (left := [change.asked for change in wanted.changes if change.is_unprocessed])
        }
        capacity = consumed_capacities(
            self._show,
            [(wanted.reference, wanted.units) for wanted in tables if wanted.is_written],
            {wanted.reference: wanted.index_units for wanted in tables},
        )
        members = [b'"UnprocessedItems":' + _encode(unprocessed)]
        if capacity:
            members.append(capacity)
        collections = b",".join(
            b"%b:[%b]" % (_encode(wanted.reference), b",".join(wanted.metrics_in_order()))
            for wanted in tables
            if wanted.collections
        )
        if collections:
            members.append(b'"ItemCollectionMetrics":{%b}' % collections)
        self._call.succeed(b"{%b}" % b",".join(members))
