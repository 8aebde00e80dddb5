"""Pages of Query and Scan: a range of keys read across partitions until Limit, 1 MB or the end.

A page goes from partition to partition without a visible seam; a position is a key, so it does not matter to
the next page where partitions were split meanwhile. Filters and projections run beside the data.
"""

from collections.abc import Callable

from datamodel.items import decode_item, encode_item
from datamodel.limits import PAGE_SIZE_BYTES_MAX
from proto.messages import Answer, Page, Query
from router.capacity import consumed_capacity, read_units
from router.context import Call
from router.paging.page_requests import PageRequest
from router.partition_map import TableEntry


class PageReader:
    """One page in the making."""

    __slots__ = (
        "_call",
        "_count",
        "_end",
        "_fetched_size",
        "_fetched_units",
        "_items",
        "_range_of",
        "_request",
        "_scanned",
        "_size",
        "_start",
        "_stop",
        "_table_id",
        "_table_name",
        "_values",
    )

    def __init__(
        self,
        call: Call,
        request: PageRequest,
        range_of: Callable[[TableEntry], tuple[bytes, bytes]],
    ) -> None:
        """Prepare.

        Args:
            call: Is answered with the page.
            request: What is asked of each partition.
            range_of: Checks the request against the table, completes `request` (`target` and below), and
                returns the range [start, end) of the page. Called again only if the table turns out to be
                another one of the same name.
        """
        self._call = call
        self._request = request
        self._range_of = range_of
        self._values = None if request.filter is None else encode_item(request.values or {})
        self._table_id = -1
        self._table_name = ""
        self._start = self._end = self._stop = b""
        self._reset()

    def _reset(self) -> None:
        self._items: list[bytes] = []
        self._count = self._scanned = self._size = 0
        self._fetched_size = self._fetched_units = 0

    def read(self, table_name: str) -> None:
        """Find the table by its name or ARN, read, and answer."""
        self._table_name = table_name
        self._call.with_table(table_name, self._begin)

    def _begin(self, entry: TableEntry) -> None:
        self._table_id = entry.table_id
        self._start, self._end = self._range_of(entry)
        self._reset()
        if self._start >= self._end:
            self._finish(entry, None)
        else:
            self._call.ask(entry, self._make, self._page, self._request.strong)

    def _make(self, entry: TableEntry) -> Query:
        """The request for the partition where the page goes on."""
        if entry.table_id != self._table_id:
            # Deleted and created anew while we read: an answer of the one table must not mix with the other.
            self._table_id = entry.table_id
            self._start, self._end = self._range_of(entry)
            self._reset()
        request = self._request
        if request.reverse:
            partition = entry.partition_before(self._end)
            start, end = max(self._start, partition.start), self._end
            self._stop = start
        else:
            partition = entry.partition_of(self._start)
            start, end = self._start, min(self._end, partition.end)
            self._stop = end
        return Query(
            self._call.services.client.next_id(),
            partition.group,
            start,
            end,
            request.strong,
            request.reverse,
            request.limit - self._scanned if request.limit else 0,
            PAGE_SIZE_BYTES_MAX - self._size - self._fetched_size,
            request.filter_text,
            request.projection_text,
            request.names if request.filter_text or request.projection_text else None,
            self._values,
            request.count_only,
            self._call.timeout_ms,
            request.part,
            request.fetch,
        )

    def _page(self, entry: TableEntry, answer: Answer) -> None:
        """A partition's part of the page."""
        assert isinstance(answer, Page)
        self._count += answer.count
        self._scanned += answer.scanned
        self._size += answer.size
        self._fetched_size += answer.fetched_size
        self._fetched_units += answer.fetched_units
        if answer.items:
            self._items.append(answer.items)
        if answer.last is not None:
            self._finish(entry, answer.last)
            return
        if self._request.reverse:
            self._end = self._stop
        else:
            self._start = self._stop
        if self._start >= self._end:
            self._finish(entry, None)
        else:
            self._call.ask(entry, self._make, self._page, self._request.strong)

    def _finish(self, entry: TableEntry, last: bytes | None) -> None:
        request, target = self._request, self._request.target
        assert target is not None, "set by range_of"
        units = read_units(self._size, request.strong)
        entry.usage.read_units += units
        indexes: tuple[tuple[str, float], ...] = ()
        if target.index_name is not None:
            indexes = ((target.index_name, units),)
            units = self._fetched_units * (1.0 if request.strong else 0.5)
            entry.usage.read_units += units
        parts = [b'"Count":%d,"ScannedCount":%d' % (self._count, self._scanned)]
        if not request.count_only:
            parts.append(b'"Items":[%b]' % b",".join(self._items))
        if last is not None:
            evaluated = decode_item(last)
            key = {name: evaluated[name] for name in target.start_names}
            parts.append(b'"LastEvaluatedKey":' + encode_item(key))
        if request.show_capacity is not None:
            capacity = consumed_capacity(request.show_capacity, self._table_name, units, indexes)
            if capacity:
                parts.append(capacity)
        self._call.succeed(b"{%b}" % b",".join(parts))
