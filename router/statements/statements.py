"""Executing PartiQL statements: one `StatementCall` each, alone or as a part of a batch.

A statement becomes what the other operations send: one `Write` to the leader of its partition, or `Query`
requests along the ranges of keys that its condition allows. Nothing here evaluates a condition.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, TypeAlias

import msgspec

from datamodel.attribute_values import AttributeValue
from datamodel.errors import (
    ConditionalCheckFailedError,
    DuplicateItemError,
    DynamoDBError,
    ValidationError,
)
from datamodel.expressions import parse_condition, parse_update
from datamodel.expressions.syntax_tree import And, Function, Or, Path
from datamodel.items import Item, encode_item
from datamodel.key_encoding import KeySchema, check_item_key, check_key, encode_key
from datamodel.limits import ITEM_SIZE_BYTES_MAX
from datamodel.local_indexes import check_item_index_keys
from datamodel.partiql import (
    Delete,
    ExpressionWriter,
    Insert,
    Select,
    Statement,
    Update,
    split_key,
    whole_key,
)
from proto.client_groups import GroupRequest
from proto.messages import (
    DELETE,
    PUT,
    RETURN_ALL_NEW,
    RETURN_ALL_OLD,
    RETURN_NONE,
    RETURN_UPDATED_NEW,
    RETURN_UPDATED_OLD,
    UPDATE,
    Action,
    ActionResult,
    Answer,
    Refused,
    ReturnKind,
)
from router.capacity import write_units
from router.context import Call
from router.partition_map import TableEntry
from router.write_path import WriteExpressions, send_action

_RETURNS: Final[dict[str, ReturnKind]] = {
    "": RETURN_NONE,
    "all old": RETURN_ALL_OLD,
    "modified old": RETURN_UPDATED_OLD,
    "all new": RETURN_ALL_NEW,
    "modified new": RETURN_UPDATED_NEW,
}
_TOKEN_VERSION: Final = 1
_DIGEST_BYTES: Final = 16
OTHER_TOKEN: Final = "NextToken does not match request"


@dataclass(slots=True)
class Outcome:
    """What a statement came to.

    Attributes:
        table: Name of its table.
        units: Capacity units that it consumed of the table itself.
        items: JSON bodies of the items read, or of what RETURNING asks for.
        last_key: Where the page ended, if there may be more.
        indexes: Name of each local index touched, and the capacity units that it consumed of that.
    """

    table: str
    units: float
    items: Sequence[bytes] = field(default_factory=tuple)
    last_key: bytes | None = None
    indexes: Sequence[tuple[str, float]] = ()


OnEnd: TypeAlias = "Callable[[StatementCall, Outcome | DynamoDBError], None]"


class StatementCall(Call):
    """One statement on its way to its outcome, which its parent call is then told of, exactly once.

    Attributes:
        table_name: Name of the table that was asked; None until one was.
        failed_units: Write units that a failed condition consumed: those of the item that is stored, or of the one
            that was to be inserted if that is larger.
    """

    __slots__ = ("_insert_size", "_is_insert", "_on_end", "failed_units", "table_name")

    def __init__(self, parent: Call, operation: str, on_end: OnEnd) -> None:
        """Begin; the deadline is the parent's."""
        metrics = parent.services.metrics.operation(operation)
        super().__init__(parent.services, metrics, parent.context, _no_reply)
        self.deadline = parent.deadline
        self.table_name: str | None = None
        self.failed_units = 0.0
        self._on_end = on_end
        self._is_insert = False
        self._insert_size = 0

    def start(self, statement: Statement | None, run: "Callable[[StatementCall], None]") -> None:
        """Execute: whatever `run` raises is the outcome."""
        if isinstance(statement, Insert):
            self._is_insert = True
            self._insert_size = statement.size
        try:
            run(self)
        except DynamoDBError as error:
            self.fail(error)
        except Exception:  # noqa: BLE001 - logged there; the client must get its reply
            self.fail_internally()

    def ask(
        self,
        entry: TableEntry,
        make: Callable[[TableEntry], GroupRequest],
        done: Callable[[TableEntry, Answer], None],
        leader: bool = True,
    ) -> None:
        """See `Call.ask`; notes the table once its request could be made."""

        def make_noted(asked: TableEntry) -> GroupRequest:
            request = make(asked)
            self.table_name = asked.name
            return request

        super().ask(entry, make_noted, done, leader)

    def _error_of(self, answer: Answer) -> DynamoDBError:
        error = super()._error_of(answer)
        if isinstance(error, ConditionalCheckFailedError) and isinstance(answer, Refused):
            stored = answer.reasons[0].old_size if answer.reasons else 0
            self.failed_units = write_units(stored, self._insert_size)
        return error

    def end(self, outcome: Outcome) -> None:
        """The statement was executed."""
        assert self._is_open, "a statement has one outcome"
        self._is_open = False
        self._on_end(self, outcome)

    def fail(self, error: DynamoDBError) -> None:
        """The statement failed."""
        assert self._is_open, "a statement has one outcome"
        self._is_open = False
        if self._is_insert and isinstance(error, ConditionalCheckFailedError):
            error = DuplicateItemError()
        self._on_end(self, error)


def _no_reply(_status: int, _body: bytes) -> None:
    msg = "statements answer through their parent"
    raise AssertionError(msg)


def key_of_statement(statement: Statement, entry: TableEntry) -> bytes | None:
    """The keyspace key of the one item that a statement names; None if it does not, whatever becomes of that."""
    schema = entry.schema
    key: Item | None = None
    try:
        match statement:
            case Insert():
                check_item_key(schema, statement.item)
                return encode_key(entry.table_id, schema, statement.item)
            case Select():
                key = None if statement.index else whole_key(statement.where, schema)
            case Update() | Delete():
                key, _ = split_key(statement.where, schema)
        if key is None:
            return None
        check_key(schema, key)
    except ValidationError:
        return None
    return encode_key(entry.table_id, schema, key)


# --- writes ------------------------------------------------------------------------------------------------


def check_write(statement: Statement) -> None:
    """What the service finds wrong with a write before it looks for the table.

    Raises:
        ValidationError: The item is too large.
    """
    if isinstance(statement, Insert) and statement.size > ITEM_SIZE_BYTES_MAX:
        raise ValidationError("Item size has exceeded the maximum allowed size")


def write(
    call: StatementCall, statement: Insert | Update | Delete, *, return_on_failure: bool
) -> None:
    """Execute a write.

    Args:
        call: Ends with the outcome.
        statement: The statement.
        return_on_failure: Whether the error of a failed condition shall have the item.
    """

    def make_action(entry: TableEntry) -> Action:
        match statement:
            case Insert():
                return _insertion(entry, statement)
            case Update():
                return _change(entry, statement, return_on_failure)
            case Delete():
                return _removal(entry, statement, return_on_failure)

    def written(
        entry: TableEntry,
        result: ActionResult,
        units: float,
        indexes: Sequence[tuple[str, float]],
    ) -> None:
        items = () if result.attributes is None else (result.attributes,)
        call.end(Outcome(entry.name, units, items, indexes=indexes))

    send_action(call, statement.table, make_action, written)


def _insertion(entry: TableEntry, statement: Insert) -> Action:
    schema, item = entry.schema, statement.item
    check_item_key(schema, item)
    if entry.local_indexes:
        check_item_index_keys(entry.local_indexes[::-1], item)
    writer = ExpressionWriter()
    condition = writer.condition(_lacks_item(schema))
    return Action(
        PUT,
        encode_key(entry.table_id, schema, item),
        encode_item(item),
        statement.size,
        condition,
        None,
        writer.names,
    )


def _change(entry: TableEntry, statement: Update, return_on_failure: bool) -> Action:
    schema = entry.schema
    key, rest = split_key(statement.where, schema)
    check_key(schema, key)
    exists = Function("attribute_exists", (Path((schema.partition_name,)),))
    writer = ExpressionWriter()
    update = writer.update(statement.actions)
    condition = writer.condition(exists if rest is None else And((exists, rest)))
    values = encode_item(writer.values) if writer.values else None
    _check_keys(entry, writer, condition, update, values)
    return Action(
        UPDATE,
        encode_key(entry.table_id, schema, key),
        encode_item(key),
        0,
        condition,
        update,
        writer.names,
        values,
        _RETURNS[statement.returning],
        return_on_failure,
    )


def _removal(entry: TableEntry, statement: Delete, return_on_failure: bool) -> Action:
    schema = entry.schema
    key, rest = split_key(statement.where, schema)
    check_key(schema, key)
    writer = ExpressionWriter()
    # Deleting what is not there succeeds, whatever else the condition says.
    condition = None if rest is None else writer.condition(Or((_lacks_item(schema), rest)))
    values = encode_item(writer.values) if writer.values else None
    _check_keys(entry, writer, condition, None, values)
    return Action(
        DELETE,
        encode_key(entry.table_id, schema, key),
        encode_item(key),
        0,
        condition,
        None,
        writer.names or None,
        values,
        _RETURNS[statement.returning],
        return_on_failure,
    )


def _check_keys(
    entry: TableEntry,
    writer: ExpressionWriter,
    condition: str | None,
    update: str | None,
    values: bytes | None,
) -> None:
    """What the expressions do to key attributes of the table and its indexes."""
    WriteExpressions(
        None if condition is None else parse_condition(condition, writer.names),
        None if update is None else parse_update(update, writer.names),
        writer.names,
        values,
    ).check_keys(entry)


def _lacks_item(schema: KeySchema) -> Function:
    return Function("attribute_not_exists", (Path((schema.partition_name,)),))


# --- NextToken ---------------------------------------------------------------------------------------------


def statement_digest(text: str, parameters: Sequence[AttributeValue]) -> str:
    """What ties a NextToken to its statement: it is of no use to another one."""
    digest = sha256(text.encode("utf-8", "surrogatepass"))
    digest.update(b"\x00")
    digest.update(msgspec.json.encode(parameters))
    return digest.digest()[:_DIGEST_BYTES].hex()


def make_token(digest: str, last_key: bytes) -> str:
    """The NextToken for the page behind a key."""
    content = msgspec.json.encode([_TOKEN_VERSION, digest, msgspec.Raw(last_key)])
    return urlsafe_b64encode(content).decode()


def read_token(token: str, digest: str) -> Any:
    """The key in a NextToken; whether it is one of the table is not checked.

    Raises:
        ValidationError: It is no token of this statement.
    """
    try:
        content = msgspec.json.decode(urlsafe_b64decode(token), strict=True)
    except (ValueError, RecursionError) as error:
        raise ValidationError("Invalid NextToken") from error
    match content:
        case [version, str(given), dict(key)] if version == _TOKEN_VERSION:
            if given != digest:
                raise ValidationError(OTHER_TOKEN)
            return key
        case _:
            raise ValidationError("Invalid NextToken")
