"""A partition group 0 in memory that answers as storage nodes do, for tests of whoever uses the catalog.

Conditions are evaluated by the storage node's own pure code, so that what passes here is what passes there.
"""

import asyncio
from collections.abc import Callable, Iterable

from datamodel.catalog_rows import CATALOG_GROUP, Row, parse_row, row_item, row_key
from datamodel.items import decode_item, encode_item, item_size
from datamodel.stored_items import pack_record
from proto.messages import (
    Answer,
    FeedPage,
    FeedRecord,
    Get,
    OutcomeUnknown,
    Page,
    Query,
    ReadFeed,
    Refused,
    Stats,
    StatsReply,
    Unavailable,
    Value,
    Write,
    Written,
    WrongPartition,
)
from storagenode.replicas.evaluation import Refusal, evaluate


class FakeCluster:
    """What `ClusterClient` offers, over one dict.

    Attributes:
        is_away: Nothing answers.
        lose_answers: So many writes take effect without the writer hearing of it.
        stats: What `Stats` of a group answers; a group not in here answers `Unavailable`.
        on_request: Called with each request before it is answered.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.items: dict[bytes, tuple[bytes, int]] = {}
        self.feed: list[FeedRecord] = []
        self.trimmed_before = 0
        self.is_away = False
        self.lose_answers = 0
        self.stats: dict[int, tuple[int, int]] = {}
        self.groups: dict[int, list] = {}
        self.requests: list[object] = []
        self.on_request: Callable[[object], None] = lambda request: None
        self.cluster_id = "fake"
        self._ids = 0
        self._news = asyncio.Event()
        for row in rows:
            self.put(row)

    # --- what a test does to it

    def put(self, row: Row) -> None:
        """Store a row as if somebody else had written it."""
        item = row_item(row)
        self._set(row_key(row), encode_item(item), item_size(item))

    def remove(self, row: Row) -> None:
        """Delete a row as if somebody else had."""
        self._set(row_key(row), None, 0)

    def row(self, key: bytes) -> Row | None:
        """What is stored under a key."""
        stored = self.items.get(key)
        return None if stored is None else parse_row(decode_item(stored[0]))

    def trim(self) -> None:
        """Forget the feed."""
        self.trimmed_before = len(self.feed)
        self._wake()

    def _set(self, key: bytes, body: bytes | None, size: int) -> None:
        old = self.items.pop(key, None)
        if body is not None:
            self.items[key] = (body, size)
        record = FeedRecord(len(self.feed) + 1, key, None if old is None else old[0], body, 0)
        self.feed.append(record)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # --- what ClusterClient offers

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def next_request_id(self) -> bytes:
        self._ids += 1
        return self._ids.to_bytes(16, "big")

    def update_groups(self, groups, removed=()) -> None:
        self.groups |= {group: list(addresses) for group, addresses in groups.items()}
        for group in removed:
            self.groups.pop(group, None)

    def rediscover(self) -> None:
        """It is where it was."""

    def replicas(self, group: int) -> tuple:
        return tuple(self.groups.get(group, ()))

    async def request(self, request, timeout_s: float, leader: bool = True) -> Answer:
        self.requests.append(request)
        self.on_request(request)
        await asyncio.sleep(0)
        if self.is_away:
            return Unavailable(0, "away")
        match request:
            case Stats():
                found = self.stats.get(request.group)
                return Unavailable(0, "no leader") if found is None else StatsReply(0, *found)
            case _ if request.group != CATALOG_GROUP:
                return WrongPartition(0, request.group)
            case Get():
                stored = self.items.get(request.key)
                value = None if stored is None else pack_record(stored[0], stored[1], 1, 1)
                return Value(0, value)
            case Query():
                return self._page(request)
            case Write():
                return self._write(request)
            case ReadFeed():
                return await self._read_feed(request)

    def _page(self, query: Query) -> Page:
        keys = sorted(key for key in self.items if query.start <= key < query.end)
        # Small pages, so that whoever reads must go on.
        count = min(query.limit or 3, 3)
        bodies = [self.items[key][0] for key in keys[:count]]
        last = bodies[-1] if len(keys) >= count and bodies else None
        return Page(0, b",".join(bodies), len(bodies), len(bodies), 0, last)

    def _write(self, write: Write) -> Answer:
        effect = evaluate(write.actions, self.items.get, keep_images=False)
        if isinstance(effect, Refusal):
            return Refused(0, effect.code, effect.message, effect.reasons)
        for key, body, size in effect.mutations:
            self._set(key, body, size)
        if self.lose_answers:
            self.lose_answers -= 1
            return OutcomeUnknown(0, "lost")
        return Written(0, effect.results)

    async def _read_feed(self, request: ReadFeed) -> FeedPage | Unavailable:
        news = self._news
        if request.position < self.trimmed_before or request.position < 0:
            return FeedPage(0, [], len(self.feed), trimmed=True)
        if request.position >= len(self.feed) and request.wait_ms:
            try:
                async with asyncio.timeout(request.wait_ms / 1000):
                    await news.wait()
            except TimeoutError:
                return FeedPage(0, [], request.position)
            if self.is_away:
                return Unavailable(0, "away")
            return await self._read_feed(request)
        records = self.feed[request.position : request.position + max(request.limit, 1)]
        position = records[-1].position if records else request.position
        return FeedPage(0, records, position)
