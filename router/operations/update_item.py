"""UpdateItem: change attributes of an item, or create it."""

from typing import Final

from datamodel.items import normalise_item
from datamodel.key_encoding import check_key
from datamodel.requests import UpdateItemInput
from proto.messages import (
    RETURN_ALL_NEW,
    RETURN_ALL_OLD,
    RETURN_NONE,
    RETURN_UPDATED_NEW,
    RETURN_UPDATED_OLD,
    UPDATE,
    ReturnKind,
)
from router.context import Call
from router.write_path import check_expressions, check_parameters, send_write

_RETURNS: Final[dict[str | None, ReturnKind]] = {
    None: RETURN_NONE,
    "NONE": RETURN_NONE,
    "ALL_OLD": RETURN_ALL_OLD,
    "UPDATED_OLD": RETURN_UPDATED_OLD,
    "ALL_NEW": RETURN_ALL_NEW,
    "UPDATED_NEW": RETURN_UPDATED_NEW,
}


def handle(request: UpdateItemInput, call: Call) -> None:
    """The leader applies the update; without an UpdateExpression the item is only made to exist."""
    check_parameters(request, request.UpdateExpression, request.AttributeUpdates)
    key, _ = normalise_item(request.Key)
    expressions = check_expressions(request, request.UpdateExpression)
    send_write(
        call,
        request,
        UPDATE,
        key,
        0,
        expressions,
        _RETURNS[request.ReturnValues],
        lambda entry: check_key(entry.schema, key),
    )
