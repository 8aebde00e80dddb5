"""One page of a Query or Scan, made in steps, so that a long page does not stop the node's loop.

A page reads one consistent state of the engine (its cursor), however many steps it takes. It ends behind the
item that reaches the request's `limit`, or whose size reaches `size_limit`, or at the end of the range.
"""

from collections.abc import Mapping
from typing import Any

from datamodel.expressions import parse_projection, read_condition
from datamodel.items import decode_item, encode_item
from datamodel.stored_items import HEADER_SIZE, check_record, record_size
from proto.messages import Page, Query
from storagenode.engines.engine import Cursor

STEP_ITEMS = 400
"""Items per step: about a millisecond without a filter, two or three with one."""


class PageScan:
    """A page in the making. Close it when it is not finished.

    Attributes:
        items_per_step: How many items its next step should take, for whoever runs it.
    """

    __slots__ = (
        "_bodies",
        "_count",
        "_cursor",
        "_fetched_size",
        "_fetched_units",
        "_filter",
        "_last",
        "_projection",
        "_query",
        "_scanned",
        "_size",
        "_values",
        "items_per_step",
    )

    def __init__(self, query: Query, cursor: Cursor) -> None:
        """Begin.

        Raises:
            DynamoDBError: An expression is not valid.
        """
        self._query = query
        self._cursor = cursor
        self._filter = (
            None
            if query.filter is None
            else read_condition(query.filter, query.names, "FilterExpression")
        )
        self._projection = (
            None
            if query.projection is None or query.count_only
            else parse_projection(query.projection, query.names)
        )
        values: Mapping[str, Any] = {} if query.values is None else decode_item(query.values)
        self._values = values if self._filter is None else self._filter.prepare(values)
        self._bodies: list[bytes] = []
        self._count = 0
        self._scanned = 0
        self._size = 0
        self._last: bytes | None = None
        self._fetched_size = 0
        self._fetched_units = 0
        self.items_per_step = STEP_ITEMS

    def step(self, items_max: int = STEP_ITEMS) -> bool:
        """Evaluate up to `items_max` more items; True when the page is finished.

        Raises:
            DynamoDBError: The filter cannot be evaluated.
            Corruption: A record is damaged.
            EngineFailure: The engine is.
        """
        query = self._query
        limit = query.limit or (1 << 62)
        size_limit = query.size_limit
        scanned, size = self._scanned, self._size
        stop = scanned + items_max
        bodies = self._bodies
        item_filter, projection = self._filter, self._projection
        plain = item_filter is None and projection is None
        keep = not query.count_only
        for _, record in self._cursor:
            check_record(record, "item")
            scanned += 1
            size += record_size(record)
            body = record[HEADER_SIZE:]
            if plain:
                if keep:
                    bodies.append(body)
            else:
                item = decode_item(body)
                if item_filter is None or item_filter.evaluate(item, self._values):
                    self._count += 1
                    if keep:
                        bodies.append(
                            body if projection is None else encode_item(projection.apply(item))
                        )
            if scanned >= limit or size >= size_limit:
                self._last = body
                break
            if scanned >= stop:
                self._scanned, self._size = scanned, size
                return False
        self._scanned, self._size = scanned, size
        if plain:
            self._count = scanned
        self.close()
        return True

    def page(self, position: int = 0) -> Page:
        """The answer, once finished, read from the state that the log had made at `position`."""
        return Page(
            self._query.id,
            b",".join(self._bodies),
            self._count,
            self._scanned,
            self._size,
            self._last,
            self._fetched_size,
            self._fetched_units,
            position,
        )

    def close(self) -> None:
        """Let go of the engine's state."""
        self._cursor.close()
