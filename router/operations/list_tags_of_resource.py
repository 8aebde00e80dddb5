"""ListTagsOfResource: all tags of a table. There are never so many that a second page is needed."""

from collections.abc import Mapping
from typing import Any

from datamodel.requests import ListTagsOfResourceInput
from datamodel.table_descriptions import resource_not_found, tagged_table_name
from router.context import Call
from router.operations.table_access import fetch_or_recall


async def handle(request: ListTagsOfResourceInput, call: Call) -> Mapping[str, Any]:
    """List the tags; a NextToken is ignored, as the service does with one it did not give."""
    arn = request.ResourceArn
    name = tagged_table_name(arn, call.services.region, call.services.account_id)
    table = await fetch_or_recall(name, call)
    if table is None:
        raise resource_not_found(arn)
    return {"Tags": [{"Key": key, "Value": value} for key, value in table.tags]}
