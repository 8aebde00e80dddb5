"""PutItem: write a whole item, in place of one with the same key."""

from datamodel.items import check_item_size, normalise_item
from datamodel.key_encoding import check_item_key
from datamodel.local_indexes import check_item_index_keys
from datamodel.requests import PutItemInput
from proto.messages import PUT
from router.context import Call
from router.partition_map import TableEntry
from router.write_path import check_expressions, check_parameters, returns_old, send_write


def handle(request: PutItemInput, call: Call) -> None:
    """Normalise the item once, here; what is stored is what is read back."""
    check_parameters(request, None, None)
    item, size = normalise_item(request.Item)
    returns = returns_old(request.ReturnValues)
    expressions = check_expressions(request, None)

    def check(entry: TableEntry) -> None:
        check_item_size(size)
        check_item_key(entry.schema, item)
        if entry.local_indexes:
            check_item_index_keys(entry.local_indexes[::-1], item)

    send_write(call, request, PUT, item, size, expressions, returns, check)
