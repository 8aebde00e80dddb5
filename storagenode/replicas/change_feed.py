"""Reading a partition's change feed, and waiting for it.

Records are numbered from 1; those behind the newest `RECORDS_KEPT` are trimmed as new ones come. Who asks for
what is gone is told `trimmed` together with the position to go on from: read the state anew, then the feed.
A negative position asks for just that: where the feed stands now.
"""

from collections.abc import Callable

from proto.link import Link
from proto.messages import FeedPage, FeedRecord, ReadFeed
from raft.group import Environment, Timer
from storagenode.engines.engine import View, feed_key
from storagenode.replicas.log_entries import decode_feed_record

RECORDS_KEPT = 10_000
PAGE_RECORDS_MAX = 1_000
PAGE_BYTES_MAX = 1 << 20
WAIT_MS_MAX = 60_000
WAITERS_MAX = 1_000


class _Waiter:
    """A reader at the end of the feed."""

    __slots__ = ("link", "request", "timer")

    def __init__(self, link: Link, request: ReadFeed) -> None:
        self.link = link
        self.request = request
        self.timer: Timer | None = None


class FeedReaders:
    """Answers `ReadFeed` requests of one replica, at once or when there is something."""

    def __init__(
        self, group: int, view: View, environment: Environment, position: Callable[[], int]
    ) -> None:
        """Create.

        Args:
            group: Whose feed.
            view: The engine.
            environment: For waiting.
            position: Position of the newest record in the engine.
        """
        self._group = group
        self._view = view
        self._environment = environment
        self._position = position
        self._waiters: list[_Waiter] = []

    def read(self, link: Link, request: ReadFeed) -> None:
        """Answer with what there is after the request's position, or wait for it."""
        position = self._position()
        wait_ms = min(request.wait_ms, WAIT_MS_MAX)
        oldest = max(1, position - RECORDS_KEPT + 1)
        if (
            request.position < oldest - 1
            or request.position < position
            or wait_ms <= 0
            or len(self._waiters) >= WAITERS_MAX
        ):
            link.send(self._page(request, position, oldest))
            return
        waiter = _Waiter(link, request)
        self._waiters.append(waiter)
        waiter.timer = self._environment.call_later(wait_ms / 1000, lambda: self._waited(waiter))

    def wake(self) -> None:
        """New records are in the engine."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                assert waiter.timer is not None
                waiter.timer.cancel()
                self.read(waiter.link, waiter.request)

    def end(self) -> None:
        """The replica closes: whoever waits gets what there is, which is nothing."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            assert waiter.timer is not None
            waiter.timer.cancel()
            waiter.link.send(FeedPage(waiter.request.id, [], waiter.request.position))

    def _waited(self, waiter: _Waiter) -> None:
        self._waiters.remove(waiter)
        waiter.link.send(FeedPage(waiter.request.id, [], waiter.request.position))

    def _page(self, request: ReadFeed, position: int, oldest: int) -> FeedPage:
        if request.position < oldest - 1:
            return FeedPage(request.id, [], position, trimmed=True)
        limit = min(request.limit, PAGE_RECORDS_MAX) if request.limit > 0 else PAGE_RECORDS_MAX
        records: list[FeedRecord] = []
        size = 0
        last = request.position
        cursor = self._view.iterate(
            feed_key(self._group, request.position + 1), feed_key(self._group, position + 1)
        )
        for _, data in cursor:
            record = decode_feed_record(data)
            records.append(record)
            last = record.position
            size += len(data)
            if len(records) >= limit or size >= PAGE_BYTES_MAX:
                break
        cursor.close()
        return FeedPage(request.id, records, last)
