"""How many items a table has, and how many bytes: asked of its partitions' leaders, or remembered.

The service refreshes these figures every six hours; here they are as of the question, or as last known for
partitions that do not answer at once.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Final, NamedTuple

from datamodel.catalog_rows import PartitionRow
from proto.cluster_client import ClusterClient
from proto.messages import Stats, StatsReply

STATS_TIMEOUT_S: Final = 0.5


class TableSize(NamedTuple):
    """Size of a table.

    Attributes:
        item_count: Its items.
        size_bytes: Their bytes.
        index_figures: Count and bytes of the entries of each local index in turn.
    """

    item_count: int = 0
    size_bytes: int = 0
    index_figures: tuple[int, ...] = ()


GROUPS_KEPT: Final = 50_000
"""Beyond so many partitions remembered, all are forgotten."""


NO_SIZE: Final = TableSize()
"""Of a table that nothing is known of."""


class TableSizes:
    """Sizes of partitions, as last heard."""

    def __init__(self) -> None:
        self._known: dict[int, TableSize] = {}

    async def fetch(self, client: ClusterClient, partitions: Sequence[PartitionRow]) -> TableSize:
        """The size of a table; takes `STATS_TIMEOUT_S` at most."""
        groups = [partition.group for partition in partitions]
        answers = await asyncio.gather(
            *(client.request(Stats(0, group), STATS_TIMEOUT_S) for group in groups)
        )
        if len(self._known) > GROUPS_KEPT:
            self._known.clear()
        for group, answer in zip(groups, answers, strict=True):
            if isinstance(answer, StatsReply):
                self._known[group] = TableSize(
                    answer.item_count, answer.size_bytes, tuple(answer.index_figures)
                )
        return self.last_known(groups)

    def last_known(self, groups: Iterable[int]) -> TableSize:
        """The size over groups, as last heard; zero for those never heard of."""
        sizes = [self._known.get(group, NO_SIZE) for group in groups]
        figures = zip_longest(*(size.index_figures for size in sizes), fillvalue=0)
        return TableSize(
            sum(size.item_count for size in sizes),
            sum(size.size_bytes for size in sizes),
            tuple(map(sum, figures)),
        )
