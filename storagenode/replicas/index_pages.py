"""Pages that need to know of local indexes: Scans of tables that have some, and reads that fetch items.

A Scan passes over all parts of each item collection and takes one. It steps over a few records one by one and
over more by a seek, so that what it does not want costs little beside what it does.
"""

from collections.abc import Callable

from datamodel.items import decode_item, encode_item
from datamodel.key_encoding import item_key_of_entry, part_of, part_start
from datamodel.limits import READ_UNIT_BYTES
from datamodel.stored_items import HEADER_SIZE, check_record, record_size
from proto.messages import Query
from storagenode.engines.engine import DATA, Cursor
from storagenode.replicas.query_pages import STEP_ITEMS, PageScan

STEPS_BEFORE_SEEK = 4
"""Records passed over one by one before the next part is looked for: a seek costs about as much as these."""


class IndexPageScan(PageScan):
    """A page of one part of item collections, or of the items behind the entries of an index."""

    __slots__ = ("_read",)

    def __init__(self, query: Query, cursor: Cursor, read: Callable[[bytes], bytes | None]) -> None:
        """Begin.

        Args:
            query: With `part`, with `fetch`, or with both.
            cursor: Over its range.
            read: The record of an engine key as it is now, None if there is none.

        Raises:
            DynamoDBError: An expression is not valid.
        """
        super().__init__(query, cursor)
        self._read = read

    def step(self, items_max: int = STEP_ITEMS) -> bool:
        """Look at up to `items_max` more records; True when the page is finished.

        Raises:
            DynamoDBError: The filter cannot be evaluated.
            Corruption: A record is damaged.
            EngineFailure: The engine is.
        """
        query, cursor = self._query, self._cursor
        limit = query.limit or (1 << 62)
        part, start = query.part, len(DATA)
        passed = 0
        for seen, (key, record) in enumerate(cursor, 1):
            if part >= 0 and part_of(key, start) != part:
                passed += 1
                if passed > STEPS_BEFORE_SEEK:
                    cursor.skip_to(part_start(key, part, start))
                    passed = 0
            else:
                passed = 0
                self._evaluate(key, record)
                if self._scanned >= limit or self._size + self._fetched_size >= query.size_limit:
                    self._last = record[HEADER_SIZE:]
                    break
            if seen >= items_max:
                return False
        self.close()
        return True

    def _evaluate(self, key: bytes, record: bytes) -> None:
        """Take a record of the wanted part into the page."""
        check_record(record, "item")
        self._scanned += 1
        self._size += record_size(record)
        if self._query.fetch:
            fetched = self._read(DATA + item_key_of_entry(key[len(DATA) :]))
            if fetched is None:
                return  # deleted since the page began
            check_record(fetched, "item")
            size = record_size(fetched)
            self._fetched_size += size
            self._fetched_units += -(-size // READ_UNIT_BYTES)
            record = fetched
        body = record[HEADER_SIZE:]
        item_filter, projection = self._filter, self._projection
        if item_filter is not None or projection is not None:
            item = decode_item(body)
            if item_filter is not None and not item_filter.evaluate(item, self._values):
                return
            if projection is not None:
                body = encode_item(projection.apply(item))
        self._count += 1
        if not self._query.count_only:
            self._bodies.append(body)
