"""DeleteItem: remove the item with a key, if there is one."""

from datamodel.items import encode_item, normalise_item
from datamodel.key_encoding import check_key, encode_key
from datamodel.requests import DeleteItemInput
from proto.messages import DELETE, RETURN_ALL_OLD, RETURN_NONE, Action, ReturnKind
from router.context import Call
from router.partition_map import TableEntry
from router.write_path import (
    ALL_OLD,
    check_expressions,
    check_parameters,
    check_returns_old,
    send_write,
)


def handle(request: DeleteItemInput, call: Call) -> None:
    """Deleting what is not there succeeds."""
    check_parameters(request, None, None)
    key, _ = normalise_item(request.Key)
    returns: ReturnKind = RETURN_ALL_OLD if check_returns_old(request.ReturnValues) else RETURN_NONE
    expressions = check_expressions(request, None)
    body = encode_item(key)

    def make_action(entry: TableEntry) -> Action:
        schema = entry.schema
        check_key(schema, key)
        expressions.check_keys(entry)
        return Action(
            DELETE,
            encode_key(entry.table_id, schema, key),
            body,
            0,
            expressions.condition_text,
            None,
            expressions.names,
            expressions.values,
            returns,
            request.ReturnValuesOnConditionCheckFailure == ALL_OLD,
        )

    send_write(call, request, make_action, key)
