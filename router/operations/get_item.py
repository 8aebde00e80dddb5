"""GetItem: one item by its key."""

from datamodel.expressions import (
    Projection,
    check_placeholders,
    check_placeholders_allowed,
    check_scalar_keys,
    parse_projection,
    read_placeholders,
)
from datamodel.items import decode_item, encode_item, normalise_item
from datamodel.key_encoding import check_key, encode_key
from datamodel.requests import GetItemInput
from datamodel.stored_items import HEADER_SIZE, record_size
from proto.messages import Answer, Get, Value
from router.capacity import consumed_capacity, read_units
from router.context import Call
from router.legacy_parameters import attributes_projection, check_attributes_to_get, check_mixing
from router.partition_map import TableEntry


def handle(request: GetItemInput, call: Call) -> None:
    """Read the item; strongly from the leader, else from the nearest replica.

    Without a projection the stored bytes go into the answer as they are.
    """
    names = request.ExpressionAttributeNames
    projected = (
        request.ProjectionExpression is not None
        or request.AttributesToGet is not None
        or names is not None
    )
    if projected:
        expressions = {"ProjectionExpression": request.ProjectionExpression}
        check_mixing(expressions, {"AttributesToGet": request.AttributesToGet})
        check_placeholders_allowed(names, None, expressions)
    key, _ = normalise_item(request.Key)
    projection = _projection(request) if projected else None
    strong = request.ConsistentRead is True
    next_id = call.services.client.next_id

    def make(entry: TableEntry) -> Get:
        schema = entry.schema
        check_key(schema, key)
        if projection is not None:
            check_scalar_keys(projection.nested_attributes, schema.names)
            check_scalar_keys(projection.nested_attributes, entry.index_keys, "IndexKey")
        encoded = encode_key(entry.table_id, schema, key)
        return Get(next_id(), entry.group_of(encoded), encoded, strong, call.timeout_ms)

    def done(entry: TableEntry, answer: Answer) -> None:
        assert isinstance(answer, Value)
        record = answer.value
        units = read_units(0 if record is None else record_size(record), strong)
        entry.usage.read_units += units
        if record is None:
            item = b""
        elif projection is None:
            item = b'"Item":' + record[HEADER_SIZE:]
        else:
            item = b'"Item":' + encode_item(projection.apply(decode_item(record[HEADER_SIZE:])))
        show = request.ReturnConsumedCapacity
        if show is not None:
            capacity = consumed_capacity(show, request.TableName, units)
            if capacity:
                item = capacity if not item else item + b"," + capacity
        call.succeed(b"{%b}" % item)

    call.with_table(request.TableName, lambda entry: call.ask(entry, make, done, strong))


def _projection(request: GetItemInput) -> Projection | None:
    names = request.ExpressionAttributeNames
    if request.AttributesToGet is not None:
        check_attributes_to_get(request.AttributesToGet)
        return attributes_projection(request.AttributesToGet)
    if request.ProjectionExpression is None:
        return None
    read_placeholders(names, None)
    projection = parse_projection(request.ProjectionExpression, names)
    check_placeholders(names, None, projection.names_used, ())
    return projection
