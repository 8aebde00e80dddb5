"""CreateTable: what a request may ask, and the description of the table that comes of it.

Pure: times and identities are given. The structure of a request (types, lengths, enums, required members) has
been checked before (`datamodel.shapes`); here are the rules between members, in the service's order and words.
What this version cannot do is refused by name, never ignored.

Sources: messages and precedence as recorded on the service by the authors of dynalite, and in 2026 in the
published findings on the service by the authors of an AWS controller (tags, warm and on-demand throughput).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from datamodel.errors import ValidationError
from datamodel.key_encoding import KeySchema
from datamodel.limits import LOCAL_INDEXES_MAX
from datamodel.local_indexes import LocalIndex
from datamodel.requests import (
    AttributeDefinition,
    CreateTableInput,
    KeySchemaElement,
    LocalSecondaryIndex,
    OnDemandThroughput,
    ProvisionedThroughput,
    SSESpecification,
    WarmThroughput,
)
from datamodel.table_descriptions import (
    CREATE_PARTITIONS_MAX,
    INVALID,
    PARTITIONS_TAG,
    BillingMode,
    TableDescription,
    checked_tags,
    default_warm_units,
)

CAPACITY_UNITS_BOUND: Final = 1_000_000_000_000
"""Beyond this a number of capacity units is "out of bounds" before any quota is asked."""

TABLE_CLASSES: Final = ("STANDARD", "STANDARD_INFREQUENT_ACCESS")

BOTH_UNITS_ON_DEMAND: Final = (
    INVALID
    + "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is "
    "PAY_PER_REQUEST"
)


def new_table(
    request: CreateTableInput, name: str, *, table_id: int, uuid: str, now_ms: int
) -> TableDescription:
    """The description of the table that a CreateTable request asks for, in status CREATING.

    Args:
        request: Structurally valid.
        name: The table's name (`table_descriptions.table_name_of`).
        table_id: Number for its keyspace.
        uuid: Its TableId.
        now_ms: Wall clock.

    Raises:
        ValidationError: The request breaks a rule, or asks for what this version does not do.
    """
    mode, read_units, write_units = _new_throughput(request)
    schema = _key_schema(request)
    indexes = new_local_indexes(request, schema)
    _refuse_unsupported_at_create(request)
    if request.TableClass is not None:
        check_table_class(request.TableClass)
    definitions = request.AttributeDefinitions or ()
    tags = checked_tags(request.Tags or ())
    _check_partitions_tag(tags)
    max_read, max_write = _new_on_demand_limits(request.OnDemandThroughput, mode)
    table = TableDescription(
        name=name,
        table_id=table_id,
        uuid=uuid,
        status="CREATING",
        key_schema=schema,
        attribute_definitions=tuple((d.AttributeName, d.AttributeType) for d in definitions),
        billing_mode=mode,
        created_ms=now_ms,
        read_units=read_units,
        write_units=write_units,
        on_demand_since_ms=now_ms if mode == "PAY_PER_REQUEST" else None,
        tags=tuple(sorted(tags.items())),
        table_class=request.TableClass,
        deletion_protection=bool(request.DeletionProtectionEnabled),
        max_read_units=max_read,
        max_write_units=max_write,
        local_indexes=indexes,
    )
    warm_read, warm_write = _new_warm_units(request.WarmThroughput, table)
    return replace(table, warm_read_units=warm_read, warm_write_units=warm_write)


def _check_all_used(
    definitions: Sequence[AttributeDefinition], schema: KeySchema, indexes: Sequence[KeySchema] = ()
) -> None:
    used = list(dict.fromkeys((*schema.names, *(name for key in indexes for name in key.names))))
    if len(definitions) == len(used):
        return
    if not indexes:
        raise ValidationError(
            f"{INVALID}Number of attributes in KeySchema does not exactly match number of attributes "
            "defined in AttributeDefinitions"
        )
    defined = ", ".join(definition.AttributeName for definition in definitions)
    raise ValidationError(
        f"{INVALID}Some AttributeDefinitions are not used. AttributeDefinitions: [{defined}], "
        f"keys used: [{', '.join(used)}]"
    )


def _new_throughput(request: CreateTableInput) -> tuple[BillingMode, int, int]:
    throughput = request.ProvisionedThroughput
    if request.BillingMode == "PAY_PER_REQUEST":
        if throughput is not None:
            raise ValidationError(BOTH_UNITS_ON_DEMAND)
        return "PAY_PER_REQUEST", 0, 0
    if throughput is None:
        raise ValidationError(
            f"{INVALID}ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode "
            "is PROVISIONED"
        )
    check_bounds(throughput)
    return "PROVISIONED", throughput.ReadCapacityUnits, throughput.WriteCapacityUnits


def check_bounds(throughput: ProvisionedThroughput) -> None:
    """Refuse capacity units that no quota could ever allow."""
    for member in ("ReadCapacityUnits", "WriteCapacityUnits"):
        units = getattr(throughput, member)
        if units > CAPACITY_UNITS_BOUND:
            raise ValidationError(f"Given value {units} for {member} is out of bounds")


def _key_schema(request: CreateTableInput) -> KeySchema:
    elements = request.KeySchema
    definitions = request.AttributeDefinitions
    if definitions is None:
        raise _null_member("attributeDefinitions")
    if elements is None:
        raise _null_member("keySchema")
    if len(elements) > 2:
        raise ValidationError(
            f"1 validation error detected: Value '{_printed(elements)}' at 'keySchema' failed to satisfy "
            "constraint: Member must have length less than or equal to 2"
        )
    types = attribute_types(definitions)
    if len(elements) > len(definitions):
        raise ValidationError("Invalid KeySchema: Some index key attribute have no definition")
    return checked_key_schema(elements, types)


def checked_key_schema(elements: Sequence[KeySchemaElement], types: Mapping[str, str]) -> KeySchema:
    """A key schema of one or two elements, of a table or an index.

    Args:
        elements: As the request has them.
        types: Types of the defined attributes by their names.

    Raises:
        ValidationError: It is none.
    """
    names = [element.AttributeName for element in elements]
    if any(name not in types for name in names):
        raise ValidationError(
            f"{INVALID}Some index key attributes are not defined in AttributeDefinitions. "
            f"Keys: [{', '.join(names)}], AttributeDefinitions: [{', '.join(types)}]"
        )
    if len(set(names)) != len(names):
        raise ValidationError(
            "Both the Hash Key and the Range Key element in the KeySchema have the same name"
        )
    if elements[0].KeyType != "HASH":
        raise ValidationError(
            "Invalid KeySchema: The first KeySchemaElement is not a HASH key type"
        )
    if len(elements) == 1:
        return KeySchema(names[0], types[names[0]])
    if elements[1].KeyType != "RANGE":
        raise ValidationError(
            "Invalid KeySchema: The second KeySchemaElement is not a RANGE key type"
        )
    return KeySchema(names[0], types[names[0]], names[1], types[names[1]])


def new_local_indexes(request: CreateTableInput, table: KeySchema) -> tuple[LocalIndex, ...]:
    """The local indexes that a CreateTable request asks for.

    That every defined attribute is used by some key is asked after what could be wrong with the keys of indexes
    and before what else could be. How many attributes all of them may project in sum needs no check: five lists
    of at most twenty names (the service's model says so) cannot exceed it.

    Raises:
        ValidationError: A rule is broken.
    """
    asked = request.LocalSecondaryIndexes
    definitions = request.AttributeDefinitions or ()
    if asked is None:
        if request.GlobalSecondaryIndexes is None:
            _check_all_used(definitions, table)
        return ()
    if not asked:
        raise ValidationError(f"{INVALID}List of LocalSecondaryIndexes is empty")
    if table.sort_name is None:
        raise ValidationError(
            f"{INVALID}Table KeySchema does not have a range key, which is required when specifying a "
            "LocalSecondaryIndex"
        )
    types = attribute_types(definitions)
    schemas = [
        _index_schema(index, position, table, types) for position, index in enumerate(asked, 1)
    ]
    if request.GlobalSecondaryIndexes is None:
        _check_all_used(definitions, table, schemas)
    indexes: dict[str, LocalIndex] = {}
    for index, schema in zip(asked, schemas, strict=True):
        local = _new_local_index(index, schema)
        if local.name in indexes:
            raise ValidationError(f"{INVALID}Duplicate index name: {local.name}")
        indexes[local.name] = local
    if len(indexes) > LOCAL_INDEXES_MAX:
        raise ValidationError(
            f"{INVALID}Number of LocalSecondaryIndexes exceeds per-table limit of {LOCAL_INDEXES_MAX}"
        )
    return tuple(indexes.values())


def _index_schema(
    index: LocalSecondaryIndex, position: int, table: KeySchema, types: Mapping[str, str]
) -> KeySchema:
    if len(index.KeySchema) > 2:
        raise ValidationError(
            f"1 validation error detected: Value '{_printed(index.KeySchema)}' at "
            f"'localSecondaryIndexes.{position}.member.keySchema' failed to satisfy constraint: "
            "Member must have length less than or equal to 2"
        )
    schema = checked_key_schema(index.KeySchema, types)
    if schema.sort_name is None:
        raise ValidationError(
            f"{INVALID}Index KeySchema does not have a range key for index: {index.IndexName}"
        )
    if schema.partition_name != table.partition_name:
        raise ValidationError(
            f"{INVALID}Index KeySchema does not have the same leading hash key as table KeySchema for "
            f"index: {index.IndexName}. index hash key: {schema.partition_name}, table hash key: "
            f"{table.partition_name}"
        )
    return schema


def _new_local_index(index: LocalSecondaryIndex, schema: KeySchema) -> LocalIndex:
    assert schema.sort_name is not None, "checked by _index_schema"
    assert schema.sort_type is not None, "a sort key has a type"
    projection = index.Projection.ProjectionType
    attributes = index.Projection.NonKeyAttributes
    if projection is None:
        raise ValidationError(f"{INVALID}Unknown ProjectionType: null")
    if attributes is not None and projection != "INCLUDE":
        raise ValidationError(
            f"{INVALID}ProjectionType is {projection}, but NonKeyAttributes is specified"
        )
    if attributes is None and projection == "INCLUDE":
        raise ValidationError(
            f"{INVALID}ProjectionType is INCLUDE, but NonKeyAttributes is not specified"
        )
    repeated = next((name for name in attributes or () if (attributes or ()).count(name) > 1), None)
    if repeated is not None:
        raise ValidationError(f"{INVALID}Duplicate element in NonKeyAttributes: {repeated}")
    return LocalIndex(
        index.IndexName, schema.sort_name, schema.sort_type, projection, tuple(attributes or ())
    )


def _null_member(path: str) -> ValidationError:
    return ValidationError(
        f"1 validation error detected: Value null at '{path}' failed to satisfy constraint: "
        "Member must not be null"
    )


def _printed(elements: Sequence[KeySchemaElement]) -> str:
    inner = ", ".join(
        f"KeySchemaElement(attributeName={e.AttributeName}, keyType={e.KeyType})" for e in elements
    )
    return f"[{inner}]"


def attribute_types(definitions: Sequence[AttributeDefinition]) -> dict[str, str]:
    """Types of the defined attributes by their names.

    Raises:
        ValidationError: One is defined twice.
    """
    types: dict[str, str] = {}
    for definition in definitions:
        if definition.AttributeName in types:
            raise ValidationError(f"Attribute Name is duplicated: {definition.AttributeName}")
        types[definition.AttributeName] = definition.AttributeType
    return types


def _check_partitions_tag(tags: dict[str, str]) -> None:
    text = tags.get(PARTITIONS_TAG)
    if text is None:
        return
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= CREATE_PARTITIONS_MAX):
        raise ValidationError(
            f"{INVALID}Tag {PARTITIONS_TAG} must be a number from 1 to {CREATE_PARTITIONS_MAX}, "
            f"Value: {text}"
        )


def _refuse_unsupported_at_create(request: CreateTableInput) -> None:
    if request.GlobalSecondaryIndexes is not None:
        if not request.GlobalSecondaryIndexes:
            raise ValidationError(f"{INVALID}List of GlobalSecondaryIndexes is empty")
        raise unsupported("GlobalSecondaryIndexes")
    stream = request.StreamSpecification
    if stream is not None:
        if stream.StreamEnabled and stream.StreamViewType is None:
            raise ValidationError(
                f"{INVALID}Table is being created with a stream enabled, UpdateViewType is required"
            )
        if not stream.StreamEnabled and stream.StreamViewType is not None:
            raise ValidationError(
                f"{INVALID}Table is being created with a stream disabled, UpdateViewType should not be "
                "specified"
            )
        if stream.StreamEnabled:
            raise unsupported("StreamSpecification with StreamEnabled true")
    if request.SSESpecification is not None:
        refuse_encryption(request.SSESpecification)
    if request.VectorIndexes:
        raise unsupported("VectorIndexes")
    for member in ("ResourcePolicy", "GlobalTableSourceArn", "GlobalTableSettingsReplicationMode"):
        if getattr(request, member) is not None:
            raise unsupported(member)


def refuse_encryption(specification: SSESpecification) -> None:
    """Refuse keys of the customer's; `Enabled` false (the service's own key) passes."""
    if specification.Enabled is False:
        for member in ("SSEType", "KMSMasterKeyId"):
            if getattr(specification, member) is not None:
                raise ValidationError(f"{INVALID}{member} can not be specified if Enabled is false")
        return
    if specification.SSEType == "AES256":
        raise ValidationError(f"{INVALID}SSEType AES256 is not supported")
    if specification.KMSMasterKeyId is not None and specification.SSEType is None:
        raise ValidationError(f"{INVALID}SSEType KMS is required if KMSMasterKeyId is specified")
    if specification.Enabled or specification.SSEType or specification.KMSMasterKeyId:
        raise unsupported("SSESpecification with Enabled true")


def check_table_class(table_class: str) -> None:
    """Refuse what is no class of tables."""
    if table_class not in TABLE_CLASSES:
        raise ValidationError(
            "Invalid table-class parameter provided. Please try again with a valid table-class value: "
            f"[{', '.join(TABLE_CLASSES)}]."
        )


def unsupported(what: str) -> ValidationError:
    """The error for what the API has and this version does not."""
    return ValidationError(f"{INVALID}{what} is not supported by this version of Quorate")


def _new_on_demand_limits(
    limits: OnDemandThroughput | None, mode: BillingMode
) -> tuple[int | None, int | None]:
    if limits is None:
        return None, None
    units = {
        "MaxReadRequestUnits": limits.MaxReadRequestUnits,
        "MaxWriteRequestUnits": limits.MaxWriteRequestUnits,
    }
    for member, value in units.items():
        if value is None:
            continue
        if mode == "PROVISIONED":
            raise ValidationError(
                f"{INVALID}{member} for OnDemandThroughput cannot be specified when table BillingMode is "
                "PROVISIONED."
            )
        if value < 1:
            raise outside_range(member)
    return limits.MaxReadRequestUnits, limits.MaxWriteRequestUnits


def outside_range(member: str) -> ValidationError:
    """The error for an on-demand limit that can never be."""
    return ValidationError(
        f"{INVALID}Requested {member} for OnDemandThroughput for table is outside of valid range"
    )


def _new_warm_units(warm: WarmThroughput | None, table: TableDescription) -> tuple[int, int]:
    least_read, least_write = default_warm_units(table)
    read = warm.ReadUnitsPerSecond if warm is not None else None
    write = warm.WriteUnitsPerSecond if warm is not None else None
    asked = (
        ("ReadUnitsPerSecond", read, least_read, "ReadCapacityUnits"),
        ("WriteUnitsPerSecond", write, least_write, "WriteCapacityUnits"),
    )
    for member, units, least, provisioned in asked:
        if units is None or units >= least:
            continue
        bound = (
            "initial throughput for OnDemand. See: https://docs.aws.amazon.com/amazondynamodb/latest/"
            "developerguide/on-demand-capacity-mode.html#on-demand-capacity-mode-initial"
            if table.billing_mode == "PAY_PER_REQUEST"
            else f"{provisioned} of ProvisionedThroughput"
        )
        raise ValidationError(
            f"{INVALID}Requested {member} for WarmThroughput for table is lower than {bound}"
        )
    return (least_read if read is None else read), (least_write if write is None else write)
