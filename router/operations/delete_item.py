"""DeleteItem: remove the item with a key, if there is one."""

from datamodel.items import normalise_item
from datamodel.key_encoding import check_key
from datamodel.requests import DeleteItemInput
from proto.messages import DELETE
from router.context import Call
from router.write_path import check_expressions, check_parameters, returns_old, send_write


def handle(request: DeleteItemInput, call: Call) -> None:
    """Deleting what is not there succeeds."""
    check_parameters(request, None, None)
    key, _ = normalise_item(request.Key)
    returns = returns_old(request.ReturnValues)
    expressions = check_expressions(request, None)
    send_write(
        call,
        request,
        DELETE,
        key,
        0,
        expressions,
        returns,
        lambda entry: check_key(entry.schema, key),
    )
