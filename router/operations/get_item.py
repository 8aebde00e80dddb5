"""GetItem: one item by its key."""

from datamodel.items import decode_item, encode_item, normalise_item
from datamodel.key_encoding import check_key, encode_key
from datamodel.requests import GetItemInput
from datamodel.stored_items import HEADER_SIZE, record_size
from proto.messages import Answer, Get, Value
from router.capacity import consumed_capacity, read_units
from router.context import Call
from router.partition_map import TableEntry
from router.projections import check_projection_parameters, read_projection


def handle(request: GetItemInput, call: Call) -> None:
    """Read the item; strongly from the leader, else from the nearest replica.

    Without a projection the stored bytes go into the answer as they are.
    """
    is_projected = (
        request.ProjectionExpression is not None
        or request.AttributesToGet is not None
        or request.ExpressionAttributeNames is not None
    )
    if is_projected:
        check_projection_parameters(request)
    key, _ = normalise_item(request.Key)
    projection = read_projection(request) if is_projected else None
    strong = request.ConsistentRead is True
    next_id = call.services.client.next_id

    def make(entry: TableEntry) -> Get:
        schema = entry.schema
        check_key(schema, key)
        if projection is not None:
            entry.check_scalar_keys(projection.nested_attributes)
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
