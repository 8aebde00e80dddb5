"""BatchExecuteStatement: up to 25 PartiQL statements, all reads of one item or all writes.

A batch is no unit: its statements run side by side, and each has its own outcome in the answer, which succeeds
even if none of them did. Two faults refuse the whole: reads beside writes, and an item that is named twice.
Statements that are wrong by themselves have no part in either.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from datamodel.errors import (
    AccessDeniedError,
    ConditionalCheckFailedError,
    DuplicateItemError,
    DynamoDBError,
    InternalServerError,
    ItemCollectionSizeLimitExceededError,
    ProvisionedThroughputExceededError,
    RequestLimitExceededError,
    ResourceNotFoundError,
    ThrottlingError,
    TransactionConflictError,
    ValidationError,
)
from datamodel.partiql import Select, Statement, prepare_parameters, prepare_statement
from datamodel.requests import BatchExecuteStatementInput, BatchStatementRequest
from router.batches import DUPLICATE_KEYS
from router.capacity import consumed_capacities
from router.context import Call
from router.partition_map import TableEntry
from router.statements.statement_pages import SelectOptions, select
from router.statements.statements import (
    Outcome,
    StatementCall,
    check_write,
    key_of_statement,
    write,
)

PREPARED_LENGTH_MAX: Final = 16 * 1024
"""Characters of statements after which others get their turn: some tens of milliseconds at the worst."""

_OPERATION: Final = "BatchExecuteStatement"
_INTERNAL: Final = "InternalServerError"
# What an outcome calls the exceptions of requests of their own; any other is internal.
_CODES: Final = {
    AccessDeniedError.code: "AccessDenied",
    ConditionalCheckFailedError.code: "ConditionalCheckFailed",
    DuplicateItemError.code: "DuplicateItem",
    ItemCollectionSizeLimitExceededError.code: "ItemCollectionSizeLimitExceeded",
    ProvisionedThroughputExceededError.code: "ProvisionedThroughputExceeded",
    RequestLimitExceededError.code: "RequestLimitExceeded",
    ResourceNotFoundError.code: "ResourceNotFound",
    ThrottlingError.code: "ThrottlingError",
    TransactionConflictError.code: "TransactionConflict",
    ValidationError.code: "ValidationError",
}


def handle(request: BatchExecuteStatementInput, call: Call) -> None:
    """Execute every statement that can be; answer when all have ended."""
    _Batch(request, call).prepare()


def _prepare(member: BatchStatementRequest) -> Statement | ValidationError:
    """The statement, or its own mistake; a parameter that is no attribute value fails the whole batch."""
    try:
        statement = prepare_statement(
            member.Statement, lambda: prepare_parameters(member.Parameters)
        )
        check_write(statement)
    except ValidationError as error:
        return error
    return statement


class _Batch:
    """A batch until its answer."""

    def __init__(self, request: BatchExecuteStatementInput, call: Call) -> None:
        self._request = request
        self._call = call
        self._prepared: list[Statement | ValidationError] = []
        self._left = len(request.Statements)
        self._responses = [b""] * self._left
        self._tables: list[str] = []  # in the order of the request
        # By table: what statements consumed of it and of each of its local indexes, and what failed ones did.
        self._units: dict[str, float] = {}
        self._index_units: dict[str, dict[str, float]] = {}
        self._failed_units: dict[str, float] = {}

    def prepare(self) -> None:
        """Make sense of all statements, in several turns of the loop if they are long; then execute them."""
        statements = self._request.Statements
        length = 0
        while len(self._prepared) < len(statements):
            if length > PREPARED_LENGTH_MAX:
                asyncio.get_running_loop().call_soon(self._prepare_more)
                return
            member = statements[len(self._prepared)]
            length += len(member.Statement)
            self._prepared.append(_prepare(member))
        self._start()

    def _prepare_more(self) -> None:
        try:
            self.prepare()
        except DynamoDBError as error:
            self._call.fail(error)
        except Exception:  # noqa: BLE001 - logged there; the client must get its reply
            self._call.fail_internally()

    def _start(self) -> None:
        found = [one for one in self._prepared if not isinstance(one, ValidationError)]
        if len({isinstance(statement, Select) for statement in found}) > 1:
            raise ValidationError(
                "Read and write requests together in the same batch is not supported."
            )
        self._find_tables(list(dict.fromkeys(statement.table for statement in found)), {})

    def _find_tables(self, names: list[str], entries: dict[str, TableEntry]) -> None:
        """Look all tables up, then execute; those that are not there are for their statements to say."""
        while names:
            name = names.pop()
            entry = self._call.services.tables.get(name)
            if entry is None:
                self._look_up(name, names, entries)
                return
            entries[name] = entry
        self._execute_all(entries)

    def _look_up(self, name: str, names: list[str], entries: dict[str, TableEntry]) -> None:
        def found(entry: TableEntry) -> None:
            entries[name] = entry
            self._find_tables(names, entries)

        def failed(part: StatementCall, outcome: Outcome | DynamoDBError) -> None:
            del part
            if isinstance(outcome, InternalServerError):
                self._call.fail(outcome)
            else:
                self._find_tables(names, entries)

        look = StatementCall(self._call, _OPERATION, failed)
        look.start(None, lambda part: part.with_table(name, found))

    def _execute_all(self, entries: Mapping[str, TableEntry]) -> None:
        keys = [
            key
            for one in self._prepared
            if not isinstance(one, ValidationError)
            and one.table in entries
            and (key := key_of_statement(one, entries[one.table])) is not None
        ]
        if len(set(keys)) != len(keys):
            self._call.fail(ValidationError(DUPLICATE_KEYS))
            return
        named = [one.table for one in self._prepared if not isinstance(one, ValidationError)]
        self._tables = list(dict.fromkeys(entries[name].name for name in named if name in entries))
        for place, one in enumerate(self._prepared):
            if isinstance(one, ValidationError):
                self._end(place, None, one)
            else:
                self._execute(place, one)

    def _execute(self, place: int, statement: Statement) -> None:
        member = self._request.Statements[place]

        def ended(part: StatementCall, outcome: Outcome | DynamoDBError) -> None:
            if part.failed_units and part.table_name is not None:
                table, failed = part.table_name, self._failed_units
                failed[table] = failed.get(table, 0.0) + part.failed_units
            self._end(place, part.table_name, outcome)

        def run(part: StatementCall) -> None:
            if isinstance(statement, Select):
                options = SelectOptions(strong=member.ConsistentRead is True, in_batch=True)
                select(part, statement, options)
            else:
                # (ReturnValuesOnConditionCheckFailure does nothing in a batch.)
                write(part, statement, return_on_failure=False)

        StatementCall(self._call, _OPERATION, ended).start(statement, run)

    def _end(self, place: int, table: str | None, outcome: Outcome | DynamoDBError) -> None:
        members: dict[str, Any] = {}
        if isinstance(outcome, DynamoDBError):
            members["Error"] = _error(outcome)
        else:
            self._consume(outcome.table, outcome.units, outcome.indexes)
            if outcome.items:
                members["Item"] = msgspec.Raw(outcome.items[0])
        if table is not None:
            members["TableName"] = table
        self._responses[place] = msgspec.json.encode(members)
        self._left -= 1
        if self._left == 0:
            self._answer()

    def _consume(self, table: str, units: float, index_units: Sequence[tuple[str, float]]) -> None:
        self._units[table] = self._units.get(table, 0.0) + units
        indexes = self._index_units.setdefault(table, {})
        for name, consumed in index_units:
            indexes[name] = indexes.get(name, 0.0) + consumed

    def _answer(self) -> None:
        parts = [b'"Responses":[%b]' % b",".join(self._responses)]
        # One entry for each table of which a statement succeeded. Failed conditions are in its total, and in no
        # more; as captured from the service by the authors of dynoxide (2026-08; its #188).
        capacity = self._units and consumed_capacities(
            self._request.ReturnConsumedCapacity,
            [(name, self._units[name]) for name in self._tables if name in self._units],
            self._index_units,
            self._failed_units,
        )
        if capacity:
            parts.append(capacity)
        self._call.succeed(b"{%b}" % b",".join(parts))


def _error(error: DynamoDBError) -> dict[str, Any]:
    members: dict[str, Any] = {"Code": _CODES.get(error.code, _INTERNAL)}
    if error.message:
        members["Message"] = error.message
    members.update(error.extra)
    return members
