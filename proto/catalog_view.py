"""The catalog as a process has it in memory: which tables there are, and which group serves which keys.

Never here: how it gets there (`proto.catalog_client`). Single-threaded; changed in place by `apply` and
`replace_all`, which say what changed. Rows are immutable, so a reader may keep one.

What arrives may be older than what is known (a change feed lags behind a direct read): an older version of a
row never replaces a newer one.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from datamodel.catalog_rows import (
    JobRow,
    NodeRow,
    PartitionRow,
    Row,
    SettingRow,
    TableRow,
    row_key,
)
from datamodel.table_descriptions import TableDescription
from proto.messages import ReplicaAddress


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row's change; None where there was or is no row."""

    key: bytes
    old: Row | None
    new: Row | None


class PartitionList:
    """A table's partitions in key order. Immutable."""

    __slots__ = ("_starts", "rows")

    def __init__(self, rows: Iterable[PartitionRow]) -> None:
        self.rows: Final = tuple(sorted(rows, key=lambda row: row.start))
        self._starts = [row.start for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[PartitionRow]:
        return iter(self.rows)

    def find(self, key: bytes) -> PartitionRow | None:
        """The partition that owns a keyspace key; None where there is a gap."""
        index = bisect_right(self._starts, key) - 1
        if index < 0:
            return None
        row = self.rows[index]
        return row if key < row.end else None

    def is_whole(self, start: bytes, end: bytes) -> bool:
        """Whether the partitions cover [start, end) without gap or overlap."""
        at = start
        for row in self.rows:
            if row.start != at:
                return False
            at = row.end
        return at == end


_NO_PARTITIONS: Final = PartitionList(())


class CatalogView:
    """All rows that are known.

    Attributes:
        tables: By name.
        tables_by_id: The same tables by table id.
        nodes: By node id: one row per disk, old disks included (`current_nodes` leaves those out).
        jobs: By job id.
        settings: By name.
    """

    __slots__ = (
        "_groups",
        "_partitions",
        "_rows",
        "jobs",
        "nodes",
        "settings",
        "tables",
        "tables_by_id",
    )

    def __init__(self) -> None:
        self.tables: dict[str, TableRow] = {}
        self.tables_by_id: dict[int, TableRow] = {}
        self.nodes: dict[str, NodeRow] = {}
        self.jobs: dict[str, JobRow] = {}
        self.settings: dict[str, SettingRow] = {}
        self._rows: dict[bytes, Row] = {}
        self._groups: dict[int, PartitionRow] = {}
        self._partitions: dict[int, PartitionList] = {}

    def row(self, key: bytes) -> Row | None:
        """The row with a keyspace key."""
        return self._rows.get(key)

    def partitions(self, table_id: int) -> PartitionList:
        """A table's partitions; empty while none is known."""
        return self._partitions.get(table_id, _NO_PARTITIONS)

    def group(self, group: int) -> PartitionRow | None:
        """The partition that a group serves."""
        return self._groups.get(group)

    def groups(self) -> Iterable[PartitionRow]:
        """All partitions of all tables."""
        return self._groups.values()

    def current_nodes(self) -> list[NodeRow]:
        """One row per node name: its newest disk. Sorted by name."""
        newest: dict[str, NodeRow] = {}
        for node in self.nodes.values():
            known = newest.get(node.name)
            if known is None or (node.started_ms, node.node_id) > (known.started_ms, known.node_id):
                newest[node.name] = node
        return sorted(newest.values(), key=lambda node: node.name)

    def addresses(self, partition: PartitionRow) -> list[ReplicaAddress]:
        """Where a partition's replicas are; without those whose disk never registered."""
        found = []
        for replica in partition.replicas:
            node = self.nodes.get(replica.node_id)
            if node is not None:
                found.append(
                    ReplicaAddress(replica.replica_id, node.node_id, node.address, node.az)
                )
        return found

    def apply(self, key: bytes, row: Row | None) -> RowChange | None:
        """Take a row (None: it is gone) as the newest known; None if it says nothing new."""
        old = self._rows.get(key)
        if old is row or old == row or (row is not None and old is not None and is_older(row, old)):
            return None
        if old is not None:
            self._drop(key, old)
        if row is not None:
            self._keep(key, row)
        return RowChange(key, old, row)

    def apply_removal(self, key: bytes, removed: Row | None) -> RowChange | None:
        """Take note that a row was removed, `removed` as it was then; a newer row under the key stays."""
        old = self._rows.get(key)
        if old is None or (removed is not None and is_older(removed, old)):
            return None
        return self.apply(key, None)

    def replace_all(self, rows: Iterable[Row]) -> list[RowChange]:
        """Take these rows as all there are."""
        found = {row_key(row): row for row in rows}
        changes = [self.apply(key, None) for key in list(self._rows) if key not in found]
        changes += [self.apply(key, row) for key, row in found.items()]
        return [change for change in changes if change is not None]

    def _keep(self, key: bytes, row: Row) -> None:
        self._rows[key] = row
        match row:
            case TableDescription():
                self.tables[row.name] = row
                self.tables_by_id[row.table_id] = row
            case PartitionRow():
                self._groups[row.group] = row
                self._partitions[row.table_id] = PartitionList(
                    [*self.partitions(row.table_id), row]
                )
            case NodeRow():
                self.nodes[row.node_id] = row
            case JobRow():
                self.jobs[row.job_id] = row
            case SettingRow():
                self.settings[row.name] = row

    def _drop(self, key: bytes, row: Row) -> None:
        del self._rows[key]
        match row:
            case TableDescription():
                del self.tables[row.name]
                del self.tables_by_id[row.table_id]
            case PartitionRow():
                del self._groups[row.group]
                left = [other for other in self.partitions(row.table_id) if other is not row]
                if left:
                    self._partitions[row.table_id] = PartitionList(left)
                else:
                    del self._partitions[row.table_id]
            case NodeRow():
                del self.nodes[row.node_id]
            case JobRow():
                del self.jobs[row.job_id]
            case SettingRow():
                del self.settings[row.name]


def is_older(row: Row, known: Row) -> bool:
    """Whether `row` is an earlier state of `known`: of an earlier table of that name, or a lower version."""
    if isinstance(row, TableDescription) and isinstance(known, TableDescription):
        return (row.table_id, row.version) < (known.table_id, known.version)
    return row.version < known.version
