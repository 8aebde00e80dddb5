"""PutItem: write a whole item, in place of one with the same key."""

from datamodel.items import check_item_size, encode_item, normalise_item
from datamodel.key_encoding import check_item_key, encode_key
from datamodel.local_indexes import check_item_index_keys
from datamodel.requests import PutItemInput
from proto.messages import PUT, RETURN_ALL_OLD, RETURN_NONE, Action, ReturnKind
from router.context import Call
from router.partition_map import TableEntry
from router.write_path import (
    ALL_OLD,
    check_expressions,
    check_parameters,
    check_returns_old,
    send_write,
)


def handle(request: PutItemInput, call: Call) -> None:
    """Normalise the item once, here; what is stored is what is read back."""
    check_parameters(request, None, None)
    item, size = normalise_item(request.Item)
    returns: ReturnKind = RETURN_ALL_OLD if check_returns_old(request.ReturnValues) else RETURN_NONE
    expressions = check_expressions(request, None)
    body = encode_item(item)

    def make_action(entry: TableEntry) -> Action:
        schema = entry.schema
        check_item_size(size)
        check_item_key(schema, item)
        if entry.local_indexes:
            check_item_index_keys(entry.local_indexes[::-1], item)
        expressions.check_keys(entry)
        return Action(
            PUT,
            encode_key(entry.table_id, schema, item),
            body,
            size,
            expressions.condition_text,
            None,
            expressions.names,
            expressions.values,
            returns,
            request.ReturnValuesOnConditionCheckFailure == ALL_OLD,
        )

    send_write(call, request, make_action, item)
