"""UntagResource: tags of a table, taken away; keys that it does not have do not matter."""

from collections.abc import Sequence

from datamodel.errors import ValidationError
from datamodel.requests import UntagResourceInput
from datamodel.table_descriptions import (
    TableDescription,
    check_tag_count,
    check_tag_key,
    resource_not_found,
    tagged_table_name,
)
from proto.catalog_client import RowWrite
from router.context import Call
from router.operations.table_access import change_table
from router.operations.tag_resource import check_can_tag, with_tags


async def handle(request: UntagResourceInput, call: Call) -> bytes:
    """Untag the table."""
    arn = request.ResourceArn
    name = tagged_table_name(arn, call.services.region, call.services.account_id)
    if not request.TagKeys:
        raise ValidationError("Atleast one Tag Key needs to be provided as Input.")
    for key in request.TagKeys:
        check_tag_key(key)
    gone = set(request.TagKeys)
    check_tag_count(len(gone))

    def untag(table: TableDescription) -> tuple[TableDescription, Sequence[RowWrite]]:
        check_can_tag(table)
        return with_tags(table, {k: v for k, v in table.tags if k not in gone}), []

    await change_table(name, call, lambda: resource_not_found(arn), untag)
    return b""
