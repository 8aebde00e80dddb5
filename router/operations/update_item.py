"""UpdateItem: change attributes of an item, or create it."""

from typing import Final

from datamodel.items import encode_item, normalise_item
from datamodel.key_encoding import check_key, encode_key
from datamodel.requests import UpdateItemInput
from proto.messages import (
    RETURN_ALL_NEW,
    RETURN_ALL_OLD,
    RETURN_NONE,
    RETURN_UPDATED_NEW,
    RETURN_UPDATED_OLD,
    UPDATE,
    Action,
    ReturnKind,
)
from router.context import Call
from router.partition_map import TableEntry
from router.write_path import ALL_OLD, check_expressions, check_parameters, send_write

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
    returns = _RETURNS[request.ReturnValues]
    body = encode_item(key)

    def make_action(entry: TableEntry) -> Action:
        schema = entry.schema
        check_key(schema, key)
        expressions.check_keys(entry)
        return Action(
            UPDATE,
            encode_key(entry.table_id, schema, key),
            body,
            0,
            expressions.condition_text,
            expressions.update_text,
            expressions.names,
            expressions.values,
            returns,
            request.ReturnValuesOnConditionCheckFailure == ALL_OLD,
        )

    send_write(call, request, make_action, key)
