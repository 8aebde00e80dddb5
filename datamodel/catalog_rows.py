"""The rows of the catalog: what is known of tables, partitions, nodes, jobs and settings, as items.

The catalog is the system table (`SYSTEM_TABLE_ID`) of partition group 0, with partition key `pk` and sort key
`sk`, both strings:

    pk                     sk                               row
    table                  <table name>                     TableRow
    partition#<table id>   <group id, 20 digits>            PartitionRow
    node                   <node id>                        NodeRow
    job                    <job id>                         JobRow
    setting                <name>                           SettingRow

Rows are only ever written with conditions, most of them on `version`, which every row has: a writer reads a
row, makes the next one with `version + 1` and puts it under `UNCHANGED` (or `ABSENT` for a new row). Readers
ignore attributes and kinds of row that they do not know, so that two releases can share a catalog.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

from datamodel.key_encoding import KeySchema, collection_range, encode_key, table_range
from datamodel.local_indexes import LocalIndex, ProjectionType
from datamodel.table_descriptions import BillingMode, TableDescription, TableStatus

Item: TypeAlias = dict[str, dict[str, Any]]

CATALOG_GROUP: Final = 0
SYSTEM_TABLE_ID: Final = 0
FIRST_USER_TABLE_ID: Final = 256
"""Table ids below are the system's own; all of their keys belong to group 0."""
FIRST_USER_GROUP: Final = 1
FIRST_LATER_REPLICA_ID: Final = 1_000
"""Replicas that a group begins with are numbered from 1; ids of later ones are unique in the whole cluster."""

CATALOG_SCHEMA: Final = KeySchema("pk", "S", "sk", "S")
CATALOG_RANGE: Final = (b"", table_range(FIRST_USER_TABLE_ID)[0])
"""The keyspace range that group 0 owns: [start, end)."""
ROWS_RANGE: Final = table_range(SYSTEM_TABLE_ID)
"""Every row of the catalog: [start, end)."""

ABSENT: Final = "attribute_not_exists(pk)"
UNCHANGED: Final = "version = :version"
"""Conditions for writing a new row, and the next version of a row (`unchanged_values` gives the value)."""

NEXT_TABLE_ID: Final = "next_table_id"
NEXT_GROUP_ID: Final = "next_group_id"
NEXT_REPLICA_ID: Final = "next_replica_id"
ADMIN_LEASE: Final = "admin_lease"
"""Names of settings. Counters keep the next free number under `value`."""

TableRow: TypeAlias = TableDescription
"""A table's row is its description."""


class BadRow(ValueError):
    """A stored row lacks what its kind must have, or holds what it cannot."""


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """One replica of a partition: its id in the group, and the disk (node id) that holds it."""

    replica_id: int
    node_id: str


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """A partition: the keyspace range [start, end) of one table, and the group that serves it.

    `epoch` grows with every change of range or replicas; of two descriptions the higher epoch is true.
    """

    group: int
    table_id: int
    start: bytes
    end: bytes
    epoch: int
    replicas: tuple[ReplicaRow, ...]
    version: int = 1

    def owns(self, key: bytes) -> bool:
        """Whether a keyspace key lies in this partition."""
        return self.start <= key < self.end


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A storage node's disk and where its process listens (each `host:port`, empty when it does not)."""

    node_id: str
    name: str
    az: str
    address: str
    grpc: str = ""
    metrics: str = ""
    started_ms: int = 0
    version: int = 1


@dataclass(frozen=True, slots=True)
class JobRow:
    """A long operation: what it does, to which table, and the step that comes next.

    `args` holds what a step leaves for a later one, so that whoever takes over can go on.
    """

    job_id: str
    kind: str
    step: str
    table_name: str
    table_id: int
    created_ms: int
    args: Mapping[str, str | int] = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A named setting, counter or lease."""

    name: str
    values: Mapping[str, str | int]
    version: int = 1


Row: TypeAlias = TableRow | PartitionRow | NodeRow | JobRow | SettingRow


# --- keys ------------------------------------------------------------------------------------------------


def row_key(row: Row) -> bytes:
    """Keyspace key of a row."""
    pk, sk = _row_pk_sk(row)
    return _key(pk, sk)


def table_key(name: str) -> bytes:
    """Keyspace key of a table's row."""
    return _key("table", name)


def partition_key(table_id: int, group: int) -> bytes:
    """Keyspace key of a partition's row."""
    return _key(f"partition#{table_id}", f"{group:020d}")


def node_key(node_id: str) -> bytes:
    """Keyspace key of a node's row."""
    return _key("node", node_id)


def job_key(job_id: str) -> bytes:
    """Keyspace key of a job's row."""
    return _key("job", job_id)


def setting_key(name: str) -> bytes:
    """Keyspace key of a setting's row."""
    return _key("setting", name)


def tables_range() -> tuple[bytes, bytes]:
    """All tables' rows, by name: [start, end)."""
    return collection_range(SYSTEM_TABLE_ID, CATALOG_SCHEMA, {"S": "table"}, None)


def partitions_range(table_id: int) -> tuple[bytes, bytes]:
    """All partitions' rows of a table: [start, end)."""
    return collection_range(SYSTEM_TABLE_ID, CATALOG_SCHEMA, {"S": f"partition#{table_id}"}, None)


def nodes_range() -> tuple[bytes, bytes]:
    """All nodes' rows: [start, end)."""
    return collection_range(SYSTEM_TABLE_ID, CATALOG_SCHEMA, {"S": "node"}, None)


def key_item(row: Row) -> Item:
    """The key attributes of a row, which a DELETE or CHECK action carries as its body."""
    pk, sk = _row_pk_sk(row)
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def unchanged_values(version: int) -> Item:
    """Expression values for the condition `UNCHANGED`: the version that the stored row must have."""
    return {":version": _n(version)}


def _key(pk: str, sk: str) -> bytes:
    return encode_key(SYSTEM_TABLE_ID, CATALOG_SCHEMA, {"pk": {"S": pk}, "sk": {"S": sk}})


def _row_pk_sk(row: Row) -> tuple[str, str]:
    match row:
        case TableDescription():
            return "table", row.name
        case PartitionRow():
            return f"partition#{row.table_id}", f"{row.group:020d}"
        case NodeRow():
            return "node", row.node_id
        case JobRow():
            return "job", row.job_id
        case SettingRow():
            return "setting", row.name


# --- to items --------------------------------------------------------------------------------------------


def row_item(row: Row) -> Item:
    """The item that stores a row; normalised (`datamodel.items`)."""
    item = key_item(row)
    item["version"] = _n(row.version)
    match row:
        case TableDescription():
            item |= _table_attributes(row)
        case PartitionRow():
            item |= {
                "group": _n(row.group),
                "table_id": _n(row.table_id),
                "start": _b(row.start),
                "end": _b(row.end),
                "epoch": _n(row.epoch),
                "replicas": {
                    "L": [
                        {"M": {"replica_id": _n(r.replica_id), "node_id": _s(r.node_id)}}
                        for r in row.replicas
                    ]
                },
            }
        case NodeRow():
            item |= {
                "name": _s(row.name),
                "az": _s(row.az),
                "address": _s(row.address),
                "grpc": _s(row.grpc),
                "metrics": _s(row.metrics),
                "started_ms": _n(row.started_ms),
            }
        case JobRow():
            item |= {
                "kind": _s(row.kind),
                "step": _s(row.step),
                "table_name": _s(row.table_name),
                "table_id": _n(row.table_id),
                "created_ms": _n(row.created_ms),
                "args": _scalars(row.args),
            }
        case SettingRow():
            item["values"] = _scalars(row.values)
    return item


_OPTIONAL_TABLE_NUMBERS: Final = (
    "on_demand_since_ms",
    "increased_ms",
    "decreased_ms",
    "table_class_ms",
    "max_read_units",
    "max_write_units",
)


def _table_attributes(row: TableRow) -> Item:
    schema = row.key_schema
    keys = {
        "partition_name": _s(schema.partition_name),
        "partition_type": _s(schema.partition_type),
    }
    if schema.sort_name is not None and schema.sort_type is not None:
        keys |= {"sort_name": _s(schema.sort_name), "sort_type": _s(schema.sort_type)}
    item: Item = {
        "name": _s(row.name),
        "table_id": _n(row.table_id),
        "uuid": _s(row.uuid),
        "status": _s(row.status),
        "key_schema": {"M": keys},
        "attribute_definitions": _pairs(row.attribute_definitions),
        "billing_mode": _s(row.billing_mode),
        "read_units": _n(row.read_units),
        "write_units": _n(row.write_units),
        "created_ms": _n(row.created_ms),
        "decreases": _n(row.decreases),
        "tags": _pairs(row.tags),
        "deletion_protection": {"BOOL": row.deletion_protection},
        "warm_read_units": _n(row.warm_read_units),
        "warm_write_units": _n(row.warm_write_units),
    }
    if row.local_indexes:
        item["local_indexes"] = {"L": [{"M": _local_index(index)} for index in row.local_indexes]}
    if row.table_class is not None:
        item["table_class"] = _s(row.table_class)
    for name in _OPTIONAL_TABLE_NUMBERS:
        number = getattr(row, name)
        if number is not None:
            item[name] = _n(number)
    return item


def _local_index(index: LocalIndex) -> Item:
    return {
        "name": _s(index.name),
        "sort_name": _s(index.sort_name),
        "sort_type": _s(index.sort_type),
        "projection": _s(index.projection),
        "non_key_attributes": {"L": [_s(name) for name in index.non_key_attributes]},
    }


def _s(text: str) -> dict[str, Any]:
    return {"S": text}


def _n(number: int) -> dict[str, Any]:
    return {"N": str(number)}


def _b(data: bytes) -> dict[str, Any]:
    return {"B": b64encode(data).decode()}


def _pairs(pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return {"L": [{"L": [_s(first), _s(second)]} for first, second in pairs]}


def _scalars(values: Mapping[str, str | int]) -> dict[str, Any]:
    return {"M": {k: _s(v) if isinstance(v, str) else _n(v) for k, v in values.items()}}


# --- from items ------------------------------------------------------------------------------------------


def parse_row(item: Mapping[str, Mapping[str, Any]]) -> Row | None:
    """The row that an item stores; None for a kind that this release does not know.

    Raises:
        BadRow: The item is of a known kind but not a row of it.
    """
    try:
        pk: str = item["pk"]["S"]
        parse = _PARSERS.get(pk.partition("#")[0])
        return None if parse is None else parse(item)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadRow(f"catalog row {item.get('pk')}/{item.get('sk')}: {error!r}") from error


def _parse_table(item: Mapping[str, Mapping[str, Any]]) -> TableRow:
    keys = item["key_schema"]["M"]
    optional = {
        name: int(item[name]["N"]) if name in item else None for name in _OPTIONAL_TABLE_NUMBERS
    }
    return TableDescription(
        name=item["name"]["S"],
        table_id=_int(item, "table_id"),
        uuid=item["uuid"]["S"],
        status=cast("TableStatus", item["status"]["S"]),
        key_schema=KeySchema(
            keys["partition_name"]["S"],
            keys["partition_type"]["S"],
            keys["sort_name"]["S"] if "sort_name" in keys else None,
            keys["sort_type"]["S"] if "sort_type" in keys else None,
        ),
        attribute_definitions=_parse_pairs(item["attribute_definitions"]),
        billing_mode=cast("BillingMode", item["billing_mode"]["S"]),
        created_ms=_int(item, "created_ms"),
        read_units=_int(item, "read_units"),
        write_units=_int(item, "write_units"),
        decreases=_int(item, "decreases"),
        tags=_parse_pairs(item["tags"]),
        table_class=item["table_class"]["S"] if "table_class" in item else None,
        deletion_protection=item["deletion_protection"]["BOOL"],
        warm_read_units=_int(item, "warm_read_units"),
        warm_write_units=_int(item, "warm_write_units"),
        version=_int(item, "version"),
        local_indexes=tuple(
            LocalIndex(
                index["M"]["name"]["S"],
                index["M"]["sort_name"]["S"],
                index["M"]["sort_type"]["S"],
                cast("ProjectionType", index["M"]["projection"]["S"]),
                tuple(name["S"] for name in index["M"]["non_key_attributes"]["L"]),
            )
            for index in item.get("local_indexes", {"L": ()})["L"]
        ),
        **optional,
    )


def _parse_partition(item: Mapping[str, Mapping[str, Any]]) -> PartitionRow:
    return PartitionRow(
        group=_int(item, "group"),
        table_id=_int(item, "table_id"),
        start=b64decode(item["start"]["B"]),
        end=b64decode(item["end"]["B"]),
        epoch=_int(item, "epoch"),
        replicas=tuple(
            ReplicaRow(_int(r["M"], "replica_id"), r["M"]["node_id"]["S"])
            for r in item["replicas"]["L"]
        ),
        version=_int(item, "version"),
    )


def _parse_node(item: Mapping[str, Mapping[str, Any]]) -> NodeRow:
    return NodeRow(
        node_id=item["sk"]["S"],
        name=item["name"]["S"],
        az=item["az"]["S"],
        address=item["address"]["S"],
        grpc=item["grpc"]["S"],
        metrics=item["metrics"]["S"],
        started_ms=_int(item, "started_ms"),
        version=_int(item, "version"),
    )


def _parse_job(item: Mapping[str, Mapping[str, Any]]) -> JobRow:
    return JobRow(
        job_id=item["sk"]["S"],
        kind=item["kind"]["S"],
        step=item["step"]["S"],
        table_name=item["table_name"]["S"],
        table_id=_int(item, "table_id"),
        created_ms=_int(item, "created_ms"),
        args=_parse_scalars(item["args"]),
        version=_int(item, "version"),
    )


def _parse_setting(item: Mapping[str, Mapping[str, Any]]) -> SettingRow:
    return SettingRow(item["sk"]["S"], _parse_scalars(item["values"]), _int(item, "version"))


_PARSERS: Final[dict[str, Callable[[Mapping[str, Mapping[str, Any]]], Row]]] = {
    "table": _parse_table,
    "partition": _parse_partition,
    "node": _parse_node,
    "job": _parse_job,
    "setting": _parse_setting,
}


def _int(item: Mapping[str, Mapping[str, Any]], name: str) -> int:
    return int(item[name]["N"])


def _parse_pairs(value: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((pair["L"][0]["S"], pair["L"][1]["S"]) for pair in value["L"])


def _parse_scalars(value: Mapping[str, Any]) -> dict[str, str | int]:
    return {k: v["S"] if "S" in v else int(v["N"]) for k, v in value["M"].items()}
