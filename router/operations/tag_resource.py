"""TagResource: tags of a table, added or replaced, all or none."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from datamodel.errors import ResourceInUseError, ValidationError
from datamodel.requests import TagResourceInput
from datamodel.table_descriptions import (
    INVALID,
    PARTITIONS_TAG,
    TableDescription,
    check_tag_set,
    checked_tags,
    resource_not_found,
    tagged_table_name,
)
from proto.catalog_client import RowWrite
from router.context import Call
from router.operations.table_access import change_table


async def handle(request: TagResourceInput, call: Call) -> bytes:
    """Tag the table."""
    arn = request.ResourceArn
    name = tagged_table_name(arn, call.services.region, call.services.account_id)
    if not request.Tags:
        raise ValidationError("Atleast one Tag needs to be provided as Input.")
    added = checked_tags(request.Tags)

    def tag(table: TableDescription) -> tuple[TableDescription, Sequence[RowWrite]]:
        check_can_tag(table)
        tags = dict(table.tags)
        if added.get(PARTITIONS_TAG, tags.get(PARTITIONS_TAG)) != tags.get(PARTITIONS_TAG):
            raise ValidationError(
                f"{INVALID}Tag {PARTITIONS_TAG} takes effect only when a table is created"
            )
        return with_tags(table, tags | added), []

    await change_table(name, call, lambda: resource_not_found(arn), tag)
    return b""


def with_tags(table: TableDescription, tags: Mapping[str, str]) -> TableDescription:
    """The table with exactly these tags; the same object if they are what it has.

    Raises:
        ValidationError: More than a table can have.
    """
    check_tag_set(tags)
    pairs = tuple(sorted(tags.items()))
    if pairs == table.tags:
        return table
    return replace(table, tags=pairs, version=table.version + 1)


def check_can_tag(table: TableDescription) -> None:
    """Refuse to tag a table that is not there yet or is going."""
    if table.status in ("CREATING", "DELETING"):
        doing = "created" if table.status == "CREATING" else "deleted"
        raise ResourceInUseError(
            f"Attempt to change a resource which is still in use: Table is being {doing}: {table.name}"
        )
