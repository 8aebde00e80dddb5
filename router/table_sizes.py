"""How many items a table has, and how many bytes: asked of its partitions' leaders, or remembered.

The service refreshes these figures every six hours; here they are as of the question, or as last known for
partitions that do not answer at once.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from datamodel.catalog_rows import PartitionRow
from proto.cluster_client import ClusterClient
from proto.messages import Stats, StatsReply

STATS_TIMEOUT_S: Final = 0.5
GROUPS_KEPT: Final = 50_000
"""Beyond so many partitions remembered, all are forgotten."""


class TableSizes:
    """Sizes of partitions, as last heard."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int]] = {}

    async def fetch(
        self, client: ClusterClient, partitions: Sequence[PartitionRow]
    ) -> tuple[int, int]:
        """(item count, bytes) of a table; takes `STATS_TIMEOUT_S` at most."""
        groups = [partition.group for partition in partitions]
        answers = await asyncio.gather(
            *(client.request(Stats(0, group), STATS_TIMEOUT_S) for group in groups)
        )
        if len(self._known) > GROUPS_KEPT:
            self._known.clear()
        for group, answer in zip(groups, answers, strict=True):
            if isinstance(answer, StatsReply):
                self._known[group] = (answer.item_count, answer.size_bytes)
        return self.last_known(groups)

    def last_known(self, groups: Iterable[int]) -> tuple[int, int]:
        """(item count, bytes) over groups, as last heard; zero for those never heard of."""
        sizes = [self._known.get(group, (0, 0)) for group in groups]
        return sum(count for count, _ in sizes), sum(size for _, size in sizes)
