"""What a table is: its description, how DescribeTable shows it, and its Amazon Resource Name.

`TableDescription` is the one value that the catalog stores of a table (`datamodel.catalog_rows` gives it its
row). It is immutable; a change is a new value with a higher `version`, written under the condition that the
stored row still has the version it was made from. Times are unix milliseconds, given by the caller.

Requests that make a description are validated in `datamodel.table_requests`, those that change one in
`datamodel.table_updates`.

Source: the API reference of TableDescription; presence of members and texts of errors as recorded on the
service and published in 2026 by the authors of an AWS controller.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from datamodel.errors import AccessDeniedError, ResourceNotFoundError, ValidationError
from datamodel.key_encoding import KeySchema
from datamodel.limits import (
    PARTITION_READ_UNITS_MAX,
    PARTITION_WRITE_UNITS_MAX,
    TABLE_NAME_LENGTH_MAX,
    TABLE_NAME_LENGTH_MIN,
    TAG_KEY_LENGTH_MAX,
    TAG_SET_SIZE_BYTES_MAX,
    TAG_VALUE_LENGTH_MAX,
    TAGS_MAX,
)
from datamodel.local_indexes import LocalIndex
from datamodel.requests import Tag

TableStatus: TypeAlias = Literal["CREATING", "UPDATING", "DELETING", "ACTIVE"]
BillingMode: TypeAlias = Literal["PROVISIONED", "PAY_PER_REQUEST"]

ON_DEMAND_WARM_READ_UNITS: Final = 12_000
ON_DEMAND_WARM_WRITE_UNITS: Final = 4_000
"""Warm throughput of an on-demand table that did not ask for more (developer guide, "On-demand capacity")."""

CREATE_PARTITIONS_MAX: Final = 256
"""Most partitions that a table is created with, whatever throughput it asks for; splits make more."""

PARTITIONS_TAG: Final = "quorate:partitions"
"""A tag of this name on CreateTable says outright with how many partitions the table starts."""

MS_PER_DAY: Final = 86_400_000

INVALID: Final = "One or more parameter values were invalid: "


@dataclass(frozen=True, slots=True)
class TableDescription:
    """A table as the catalog knows it.

    Attributes:
        name: Table name, unique in the cluster.
        table_id: Number that prefixes all of the table's keyspace keys; never reused.
        uuid: TableId as clients see it.
        status: Life cycle: CREATING -> ACTIVE <-> UPDATING, any -> DELETING -> gone.
        key_schema: Names and types of the primary key.
        attribute_definitions: (name, type) as the client gave them.
        billing_mode: PROVISIONED or PAY_PER_REQUEST.
        read_units, write_units: Provisioned throughput; zero when on demand.
        created_ms: When CreateTable was accepted.
        on_demand_since_ms: Last switch to PAY_PER_REQUEST (or creation in that mode); None if never.
        increased_ms, decreased_ms: Last increase and decrease of provisioned throughput.
        decreases: Decreases in the UTC day of `decreased_ms`.
        tags: (key, value) sorted by key.
        table_class: None while the client never named one.
        table_class_ms: Last change of the class.
        deletion_protection: Whether DeleteTable is refused.
        max_read_units, max_write_units: On-demand limits, None where there is none.
        warm_read_units, warm_write_units: Warm throughput: the most that the table was ever prepared for.
        version: Grows with every change of the row.
        local_indexes: Local secondary indexes; an index's number is its place here, from 1.
    """

    name: str
    table_id: int
    uuid: str
    status: TableStatus
    key_schema: KeySchema
    attribute_definitions: tuple[tuple[str, str], ...]
    billing_mode: BillingMode
    created_ms: int
    read_units: int = 0
    write_units: int = 0
    on_demand_since_ms: int | None = None
    increased_ms: int | None = None
    decreased_ms: int | None = None
    decreases: int = 0
    tags: tuple[tuple[str, str], ...] = ()
    table_class: str | None = None
    table_class_ms: int | None = None
    deletion_protection: bool = False
    max_read_units: int | None = None
    max_write_units: int | None = None
    warm_read_units: int = 0
    warm_write_units: int = 0
    version: int = 1
    local_indexes: tuple[LocalIndex, ...] = ()

    @property
    def serves_items(self) -> bool:
        """Whether item operations find the table: not before it was first ACTIVE, nor while it goes."""
        return self.status in ("ACTIVE", "UPDATING")

    def with_status(self, status: TableStatus) -> "TableDescription":
        """The next version of this description, in another status."""
        return replace(self, status=status, version=self.version + 1)


# --- names -----------------------------------------------------------------------------------------------

_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]+")
_ARN: Final = re.compile(r"arn:([^:]*):([^:]*):([^:]*):([^:]*):(.*)", re.DOTALL)
_ARN_FORMAT: Final = (
    "Valid ARN format is 'arn:<awsPartition>:<vendor>:<region>:<subscriber>:resourceType/resourceName', where "
    f"Resource name must have length less than or equal to {TABLE_NAME_LENGTH_MAX}, Resource name must have "
    f"length greater than or equal to {TABLE_NAME_LENGTH_MIN}, Resource name must satisfy regular expression "
    f"pattern: {_NAME.pattern}"
)
_TAG_PUNCTUATION: Final = frozenset("+-=._:/@")


def table_arn(region: str, account_id: str, name: str) -> str:
    """Amazon Resource Name of a table."""
    return f"arn:aws:dynamodb:{region}:{account_id}:table/{name}"


def table_name_of(text: str, region: str, account_id: str) -> str:
    """The table's name from what a request has in `TableName`, which may be a name or a table's ARN.

    Raises:
        ValidationError: Neither a name nor the ARN of a table of this region.
        AccessDeniedError: The ARN is another account's.
    """
    if not text.startswith("arn:"):
        _check_name(text)
        return text
    match = _ARN.fullmatch(text)
    if match is None:
        raise _not_as_named(text, _ARN_FORMAT)
    partition, service, arn_region, account, resource = match.groups()
    if partition != "aws":
        raise _bad_arn("Invalid AWS partition", text)
    if service != "dynamodb":
        raise _bad_arn("Invalid service", text)
    if arn_region != region:
        raise _bad_arn("Invalid AWS region", text)
    kind, _, name = resource.partition("/")
    if kind != "table":
        raise _bad_arn("Invalid resource type", text)
    if len(name) < TABLE_NAME_LENGTH_MIN:
        raise _not_as_named(
            text,
            f"Table name of ARN must have length greater than or equal to {TABLE_NAME_LENGTH_MIN}",
        )
    if len(name) > TABLE_NAME_LENGTH_MAX or _NAME.fullmatch(name) is None:
        raise _not_as_named(text, _ARN_FORMAT)
    if account != account_id:
        raise AccessDeniedError("Access is denied")
    return name


def _bad_arn(what: str, arn: str) -> ValidationError:
    return ValidationError(f"1 validation error detected: {what} in '{arn}'")


def _not_as_named(text: str, constraint: str) -> ValidationError:
    return ValidationError(
        f"1 validation error detected: Value '{text}' at 'tableName' failed to satisfy constraint: "
        f"{constraint}"
    )


def _check_name(name: str) -> None:
    if len(name) < TABLE_NAME_LENGTH_MIN:
        constraint = f"length greater than or equal to {TABLE_NAME_LENGTH_MIN}"
    elif len(name) > TABLE_NAME_LENGTH_MAX:
        constraint = f"length less than or equal to {TABLE_NAME_LENGTH_MAX}"
    elif _NAME.fullmatch(name) is None:
        constraint = f"satisfy regular expression pattern: {_NAME.pattern}"
        raise _not_as_named(name, f"Member must {constraint}")
    else:
        return
    raise _not_as_named(name, f"Member must have {constraint}")


def tagged_table_name(arn: str, region: str, account_id: str) -> str:
    """The table's name from the `ResourceArn` of a tag operation, which must be an ARN.

    Of what is another service's or another account's nothing is told, not even whether it is well formed
    (observed on the service by the authors of ExtendDB, 2026; short names by dynalite's).

    Raises:
        ValidationError: No ARN, not of a DynamoDB table, or of another region.
        AccessDeniedError: Another service's or account's, or no whole ARN.
        ResourceNotFoundError: A stream's ARN, or a name that no table can have.
    """
    if not arn.startswith("arn:"):
        raise ValidationError(f"{INVALID}ARNs must start with 'arn:': {arn}")
    match = _ARN.fullmatch(arn)
    if match is None or match[2] != "dynamodb":
        raise AccessDeniedError("Access is denied")
    partition, _, arn_region, account, resource = match.groups()
    kind, _, rest = resource.partition("/")
    name, *inner = rest.split("/")
    if kind != "table" or inner[:1] == ["backup"]:
        raise ValidationError(f"{INVALID}Provided Arn is not a DynamoDB resource arn: {arn}")
    if inner and inner[0] != "stream":
        raise ValidationError(
            f"{INVALID}Invalid resource arn provided, only table or stream is accepted. "
            f"Provided resource arn: {arn}"
        )
    if account != account_id:
        raise AccessDeniedError("Access is denied")
    has_length = TABLE_NAME_LENGTH_MIN <= len(name) <= TABLE_NAME_LENGTH_MAX
    if partition != "aws" or arn_region != region or not has_length:
        raise ValidationError(f"Invalid TableArn: Invalid ResourceArn provided as input {arn}")
    if inner or _NAME.fullmatch(name) is None:
        raise resource_not_found(arn)
    return name


def table_not_found(name: str) -> ResourceNotFoundError:
    """What control operations answer when there is no such table."""
    return ResourceNotFoundError(f"Requested resource not found: Table: {name} not found")


def resource_not_found(arn: str) -> ResourceNotFoundError:
    """What tag operations answer when there is no such table."""
    return ResourceNotFoundError(f"Requested resource not found: ResourceArn: {arn} not found")


# --- tags ------------------------------------------------------------------------------------------------


def checked_tags(tags: Iterable[Tag]) -> dict[str, str]:
    """The tags of one request, all or nothing.

    Raises:
        ValidationError: A key or value that may not be, a key given twice, or more than a table can have.
    """
    checked: dict[str, str] = {}
    for tag in tags:
        key, value = check_tag_key(tag.Key), tag.Value
        if value is None or len(value) > TAG_VALUE_LENGTH_MAX or not _is_tag_text(value):
            shown = "null" if value is None else value
            raise ValidationError(f"The Tag Value provided is invalid, Value: {shown}")
        if key in checked:
            raise ValidationError(
                f"Duplicate Tag Keys provided as input: Duplicate Tag Key found {key}"
            )
        checked[key] = value
    check_tag_set(checked)
    return checked


def check_tag_key(key: str | None) -> str:
    """The key; refuses one that is absent, empty, too long, reserved or of characters that tags do not have."""
    if key is None:
        raise ValidationError("The Tag Key provided is invalid, Key: null")
    if key[:4].lower() == "aws:":
        raise ValidationError(f"Tag Key cannot be prefixed with aws:, Key: {key}")
    if not 0 < len(key) <= TAG_KEY_LENGTH_MAX or not _is_tag_text(key):
        raise ValidationError(f"The Tag Key provided is invalid, Key: {key}")
    return key


def check_tag_count(count: int) -> None:
    """Refuse more tags than a table can have."""
    if count > TAGS_MAX:
        raise ValidationError(
            "Number of Tags exceed the current limit for the provided ResourceArn"
        )


def check_tag_set(tags: Mapping[str, str]) -> None:
    """Refuse more tags, or more bytes of keys and values, than a table can have."""
    check_tag_count(len(tags))
    size = sum(len(key.encode()) + len(value.encode()) for key, value in tags.items())
    if size > TAG_SET_SIZE_BYTES_MAX:
        raise ValidationError(
            f"Tag set size {size} bytes is above max size limit of {TAG_SET_SIZE_BYTES_MAX} bytes"
        )


def _is_tag_text(text: str) -> bool:
    return all(c in _TAG_PUNCTUATION or unicodedata.category(c)[0] in "LZN" for c in text)


# --- rendering -------------------------------------------------------------------------------------------


def render_table(
    table: TableDescription,
    *,
    region: str,
    account_id: str,
    now_ms: int,
    item_count: int = 0,
    size_bytes: int = 0,
    index_figures: Sequence[int] = (),
) -> dict[str, Any]:
    """The `TableDescription` of an answer; what is not set is left out, as clients compare presence.

    Attribute definitions and attributes that indexes include are in the order of their names. A table in
    CREATING shows warm throughput only when it asked for more than it gets anyway, and not yet since when it is
    on demand.

    Args:
        table: What to show.
        region: Appears in the ARN.
        account_id: Likewise.
        now_ms: Wall clock: decreases are counted per UTC day.
        item_count: Items of the table, as last measured.
        size_bytes: Their bytes, by DynamoDB's rule.
        index_figures: Count and bytes of the entries of each local index in turn; zero where it ends.
    """
    is_new = table.status == "CREATING"
    shown: dict[str, Any] = {
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": kind}
            for name, kind in sorted(table.attribute_definitions)
        ],
        "TableName": table.name,
        "KeySchema": _render_key_schema(table.key_schema),
        "TableStatus": table.status,
        "CreationDateTime": table.created_ms / 1000,
        "ProvisionedThroughput": _render_throughput(table, now_ms),
        "TableSizeBytes": size_bytes,
        "ItemCount": item_count,
        "TableArn": table_arn(region, account_id, table.name),
        "TableId": table.uuid,
    }
    if table.local_indexes:
        shown["LocalSecondaryIndexes"] = [
            _render_local_index(table, number, shown["TableArn"], index_figures)
            for number in range(len(table.local_indexes))
        ]
    if table.on_demand_since_ms is not None or table.billing_mode == "PAY_PER_REQUEST":
        # The mode under both of its names.
        since: dict[str, float] = {}
        if table.on_demand_since_ms is not None and not is_new:
            since["LastUpdateToPayPerRequestDateTime"] = table.on_demand_since_ms / 1000
        shown["BillingModeSummary"] = {"BillingMode": table.billing_mode, **since}
        shown["TableThroughputModeSummary"] = {"TableThroughputMode": table.billing_mode, **since}
    if table.table_class is not None:
        shown["TableClassSummary"] = {"TableClass": table.table_class}
        if table.table_class_ms is not None:
            shown["TableClassSummary"]["LastUpdateDateTime"] = table.table_class_ms / 1000
    shown["DeletionProtectionEnabled"] = table.deletion_protection
    limits = {
        "MaxReadRequestUnits": table.max_read_units,
        "MaxWriteRequestUnits": table.max_write_units,
    }
    limits = {name: units for name, units in limits.items() if units is not None}
    if limits:
        shown["OnDemandThroughput"] = limits
    if not is_new or (table.warm_read_units, table.warm_write_units) != default_warm_units(table):
        shown["WarmThroughput"] = {
            "ReadUnitsPerSecond": table.warm_read_units,
            "WriteUnitsPerSecond": table.warm_write_units,
            "Status": "UPDATING" if is_new else "ACTIVE",
        }
    return shown


def _render_local_index(
    table: TableDescription, position: int, arn: str, figures: Sequence[int]
) -> dict[str, Any]:
    index = table.local_indexes[position]
    projection: dict[str, Any] = {"ProjectionType": index.projection}
    if index.non_key_attributes:
        projection["NonKeyAttributes"] = sorted(index.non_key_attributes)
    count, size = figures[2 * position : 2 * position + 2] or (0, 0)
    return {
        "IndexName": index.name,
        "KeySchema": _render_key_schema(index.schema(table.key_schema)),
        "Projection": projection,
        "IndexSizeBytes": size,
        "ItemCount": count,
        "IndexArn": f"{arn}/index/{index.name}",
    }


_SHOWN_OF_DELETED: Final = (
    "TableName",
    "TableStatus",
    "ProvisionedThroughput",
    "TableSizeBytes",
    "ItemCount",
    "TableArn",
    "TableId",
    "BillingModeSummary",
    "TableThroughputModeSummary",
    "TableClassSummary",
    "DeletionProtectionEnabled",
)


def deleted_part(shown: Mapping[str, Any]) -> dict[str, Any]:
    """What DeleteTable's answer has of a rendered table: no schema and no time of creation."""
    return {name: shown[name] for name in _SHOWN_OF_DELETED if name in shown}


def default_warm_units(table: TableDescription) -> tuple[int, int]:
    """The (read, write) warm throughput that a table has without asking."""
    if table.billing_mode == "PAY_PER_REQUEST":
        return ON_DEMAND_WARM_READ_UNITS, ON_DEMAND_WARM_WRITE_UNITS
    return table.read_units, table.write_units


def decreases_today(table: TableDescription, now_ms: int) -> int:
    """How often provisioned throughput was decreased on this UTC day."""
    if table.decreased_ms is None or table.decreased_ms // MS_PER_DAY != now_ms // MS_PER_DAY:
        return 0
    return table.decreases


def initial_partitions(table: TableDescription) -> int:
    """With how many partitions a table starts.

    As many as the `quorate:partitions` tag says (checked when the table was validated); otherwise as many as
    the provisioned throughput needs, or the warm throughput if more than the default was asked for. An
    on-demand table that asked for nothing starts with one and grows by splits.
    """
    tagged = dict(table.tags).get(PARTITIONS_TAG)
    if tagged is not None:
        return min(max(int(tagged), 1), CREATE_PARTITIONS_MAX)
    read_units, write_units = table.warm_read_units, table.warm_write_units
    if table.billing_mode == "PAY_PER_REQUEST" and (read_units, write_units) == default_warm_units(
        table
    ):
        return 1
    needed = max(
        -(-read_units // PARTITION_READ_UNITS_MAX), -(-write_units // PARTITION_WRITE_UNITS_MAX)
    )
    return min(max(needed, 1), CREATE_PARTITIONS_MAX)


def _render_key_schema(schema: KeySchema) -> list[dict[str, str]]:
    elements = [{"AttributeName": schema.partition_name, "KeyType": "HASH"}]
    if schema.sort_name is not None:
        elements.append({"AttributeName": schema.sort_name, "KeyType": "RANGE"})
    return elements


def _render_throughput(table: TableDescription, now_ms: int) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if table.increased_ms is not None:
        shown["LastIncreaseDateTime"] = table.increased_ms / 1000
    if table.decreased_ms is not None:
        shown["LastDecreaseDateTime"] = table.decreased_ms / 1000
    shown["NumberOfDecreasesToday"] = decreases_today(table, now_ms)
    shown["ReadCapacityUnits"] = table.read_units
    shown["WriteCapacityUnits"] = table.write_units
    return shown
