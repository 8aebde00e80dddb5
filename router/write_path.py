"""What PutItem, UpdateItem and DeleteItem have in common: expressions checked, one action sent, its answer.

The leader evaluates; here everything is found that can be found without the item, so that a request that is
wrong in itself never reaches a log.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from datamodel.errors import ValidationError
from datamodel.expressions import (
    Condition,
    Update,
    check_placeholders,
    check_placeholders_allowed,
    parse_condition,
    parse_update,
    read_placeholders,
)
from datamodel.items import Item, decode_item, encode_item
from datamodel.key_encoding import encode_key
from datamodel.limits import ITEM_SIZE_BYTES_MAX
from datamodel.local_indexes import type_mismatch
from proto.messages import (
    RETURN_ALL_OLD,
    RETURN_NONE,
    Action,
    ActionKind,
    ActionResult,
    Answer,
    ReturnKind,
    Write,
    Written,
)
from router.capacity import consumed_capacity, write_units
from router.context import Call
from router.legacy_parameters import attribute_updates, check_mixing, expected_condition
from router.partition_map import TableEntry

ALL_OLD = "ALL_OLD"
NONE = "NONE"
SIZE = "SIZE"
GIGABYTE = 1 << 30


class WriteRequest(Protocol):
    """Members that the requests of all single-item writes have."""

    @property
    def TableName(self) -> str: ...  # noqa: D102, N802 - the API's own names, here and below

    @property
    def Expected(self) -> Mapping[str, Any] | None: ...  # noqa: D102, N802

    @property
    def ConditionalOperator(self) -> str | None: ...  # noqa: D102, N802

    @property
    def ConditionExpression(self) -> str | None: ...  # noqa: D102, N802

    @property
    def ExpressionAttributeNames(self) -> dict[str, str] | None: ...  # noqa: D102, N802

    @property
    def ExpressionAttributeValues(self) -> dict[str, Any] | None: ...  # noqa: D102, N802

    @property
    def ReturnConsumedCapacity(self) -> str | None: ...  # noqa: D102, N802

    @property
    def ReturnItemCollectionMetrics(self) -> str | None: ...  # noqa: D102, N802

    @property
    def ReturnValuesOnConditionCheckFailure(self) -> str | None: ...  # noqa: D102, N802


@dataclass(slots=True)
class WriteExpressions:
    """A write's expressions, checked as far as possible without table and item.

    Attributes:
        condition: The condition, None if there is none.
        update: The update, None if there is none.
        names: For the action.
        values: For the action: normal values as JSON.
        condition_text: For the action: the condition.
        update_text: For the action: the update.
    """

    condition: Condition | None = None
    update: Update | None = None
    names: dict[str, str] | None = None
    values: bytes | None = None
    condition_text: str | None = None
    update_text: str | None = None

    def check_keys(self, entry: TableEntry) -> None:
        """Check what the expressions do to key attributes of the table and its indexes.

        Raises:
            ValidationError: They change one of the table, give one of an index a wrong type, or look into one.
        """
        if self.update is not None:
            self.update.check_key(entry.schema.names)
            if entry.index_keys and self.values is not None:
                _check_assigned(self.update, decode_item(self.values), entry)
            entry.check_scalar_keys(self.update.nested_attributes)
        if self.condition is not None:
            entry.check_scalar_keys(self.condition.nested_attributes)

    def check_size(self) -> None:
        """Check the size of the update by itself, whatever the item.

        Raises:
            ValidationError: It is too large.
        """
        if (
            self.update is not None
            and self.values is not None
            # (A value has no more bytes than its JSON.)
            and self.update.statement_size_max(len(self.values)) > ITEM_SIZE_BYTES_MAX
        ):
            self.update.check_statement_size(decode_item(self.values))


def _check_assigned(update: Update, values: Mapping[str, Any], entry: TableEntry) -> None:
    assigned = update.assigned_types(values)
    for index in reversed(entry.local_indexes):
        kind = assigned.get(index.sort_name, index.sort_type)
        if kind != index.sort_type:
            raise type_mismatch(index, kind)


_NO_EXPRESSIONS = WriteExpressions()


def check_parameters(request: WriteRequest, update: str | None, updates: object) -> None:
    """Check which parameters come together, before any value is looked at.

    Args:
        request: The request.
        update: Its UpdateExpression, if the operation has one.
        updates: Its AttributeUpdates likewise.

    Raises:
        ValidationError: With the service's text.
    """
    names, values = request.ExpressionAttributeNames, request.ExpressionAttributeValues
    expressions = {"ConditionExpression": request.ConditionExpression}
    legacy: dict[str, object] = {
        "Expected": request.Expected,
        "ConditionalOperator": request.ConditionalOperator,
    }
    if hasattr(request, "UpdateExpression"):
        expressions = {"UpdateExpression": update, **expressions}
        legacy = {"AttributeUpdates": updates, **legacy}
    check_mixing(expressions, legacy)
    check_placeholders_allowed(names, values, expressions)


def check_expressions(request: WriteRequest, update_text: str | None) -> WriteExpressions:
    """Parse and check a write's expressions and the values for them.

    Raises:
        SerializationError, ValidationError: With the service's text.
    """
    condition_text = request.ConditionExpression
    if condition_text is None and update_text is None:
        return _check_legacy(request)
    names, raw_values = request.ExpressionAttributeNames, request.ExpressionAttributeValues
    values = read_placeholders(names, raw_values)
    names_used: frozenset[str] = frozenset()
    values_used: frozenset[str] = frozenset()
    update = condition = None
    if update_text is not None:
        update = parse_update(update_text, names)
        update.check_values(values)
        names_used, values_used = update.names_used, update.values_used
    if condition_text is not None:
        condition = parse_condition(condition_text, names)
        condition.check_values(values)
        names_used = names_used | condition.names_used
        values_used = values_used | condition.values_used
    check_placeholders(names, raw_values, names_used, values_used)
    return WriteExpressions(
        condition,
        update,
        names,
        encode_item(values) if values else None,
        condition_text,
        update_text,
    )


def _check_legacy(request: WriteRequest) -> WriteExpressions:
    """The same for parameters from before expressions."""
    updates = getattr(request, "AttributeUpdates", None)
    if request.Expected is None and updates is None:
        return _NO_EXPRESSIONS
    change = attribute_updates(updates)
    expected = expected_condition(request.Expected, request.ConditionalOperator)
    values = {
        **({} if change is None else change.values),
        **({} if expected is None else expected.values),
    }
    return WriteExpressions(
        None if expected is None else expected.condition,
        None if change is None else change.update,
        None,
        encode_item(values) if values else None,
        None if expected is None else expected.text,
        None if change is None else change.text,
    )


def returns_old(return_values: str | None) -> ReturnKind:
    """What PutItem or DeleteItem shall return.

    Raises:
        ValidationError: Something else than they can.
    """
    if return_values is None or return_values == NONE:
        return RETURN_NONE
    if return_values != ALL_OLD:
        raise ValidationError("ReturnValues can only be ALL_OLD or NONE")
    return RETURN_ALL_OLD


def index_units(entry: TableEntry, result: ActionResult) -> Sequence[tuple[str, float]]:
    """Name of each local index that a write changed, and the write units of that."""
    if not result.index_units:
        return ()
    return [
        (entry.local_indexes[number - 1].name, float(units)) for number, units in result.index_units
    ]


def collection_metrics(partition_key: Mapping[str, Any], size_bytes: int) -> bytes:
    """An `ItemCollectionMetrics` as JSON: between which two whole gigabytes the collection's size is."""
    gigabytes = size_bytes // GIGABYTE
    return b'{"ItemCollectionKey":%b,"SizeEstimateRangeGB":[%d.0,%d.0]}' % (
        encode_item(partition_key),
        gigabytes,
        gigabytes + 1,
    )


def send_write(
    call: Call,
    request: WriteRequest,
    kind: ActionKind,
    item: Item,
    size: int,
    expressions: WriteExpressions,
    returns: ReturnKind,
    check: Callable[[TableEntry], None],
) -> None:
    """Send one action to the leader of its partition and answer with what it did.

    Args:
        call: The request's call.
        request: The request.
        kind: Of the action.
        item: The normal item, or just its key.
        size: The item's, 0 for a key.
        expressions: The request's.
        returns: What the action shall return.
        check: Checks the item, or key, against the table.
    """
    body = encode_item(item)
    return_on_failure = request.ReturnValuesOnConditionCheckFailure == ALL_OLD

    def make_action(entry: TableEntry) -> Action:
        check(entry)
        expressions.check_size()
        expressions.check_keys(entry)
        return Action(
            kind,
            encode_key(entry.table_id, entry.schema, item),
            body,
            size,
            expressions.condition_text,
            expressions.update_text,
            expressions.names,
            expressions.values,
            returns,
            return_on_failure,
        )

    def written(
        entry: TableEntry,
        result: ActionResult,
        units: float,
        indexes: Sequence[tuple[str, float]],
    ) -> None:
        attributes = result.attributes
        body = b"" if attributes is None else b'"Attributes":' + attributes
        show = request.ReturnConsumedCapacity
        if show is not None:
            capacity = consumed_capacity(show, request.TableName, units, indexes)
            if capacity:
                body = capacity if not body else body + b"," + capacity
        if result.collection_size is not None and request.ReturnItemCollectionMetrics == SIZE:
            member = b'"ItemCollectionMetrics":' + collection_metrics(
                {entry.schema.partition_name: item[entry.schema.partition_name]},
                result.collection_size,
            )
            body = member if not body else body + b"," + member
        call.succeed(b"{%b}" % body)

    send_action(call, request.TableName, make_action, written)


def send_action(
    call: Call,
    table_name: str,
    make_action: Callable[[TableEntry], Action],
    written: Callable[[TableEntry, ActionResult, float, Sequence[tuple[str, float]]], None],
) -> None:
    """Send one action to the leader of its partition and go on with what it did.

    Args:
        call: Ends if the action fails.
        table_name: Name or ARN of the table.
        make_action: Checks against the table's key schema and builds the action.
        written: Takes the table, what the action did, the capacity units that it consumed of the table itself,
            and those of each local index.
    """
    client = call.services.client
    request_id = client.next_request_id()

    def make(entry: TableEntry) -> Write:
        action = make_action(entry)
        group = entry.group_of(action.key)
        return Write(
            client.next_id(), group, request_id, [action], call.timeout_ms, entry.local_indexes
        )

    def done(entry: TableEntry, answer: Answer) -> None:
        assert isinstance(answer, Written)
        result = answer.results[0]
        units = write_units(result.old_size, result.new_size)
        indexes = index_units(entry, result)
        entry.usage.write_units += units
        for _, consumed in indexes:
            entry.usage.write_units += consumed
        written(entry, result, units, indexes)

    call.with_table(table_name, lambda entry: call.ask(entry, make, done))
