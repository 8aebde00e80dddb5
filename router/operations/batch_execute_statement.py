"""BatchExecuteStatement: up to 25 PartiQL statements, all reads of one item or all writes.

A batch is no unit: its statements run side by side, and each has its own outcome in the answer, which succeeds
even if none of them did.
"""

import asyncio
from typing import Any, Final

import msgspec

from datamodel.errors import (
    AccessDeniedError,
    ConditionalCheckFailedError,
    DuplicateItemError,
    DynamoDBError,
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
from router.capacity import consumed_capacity
from router.context import Call
from router.statement_pages import SelectOptions, select
from router.statements import Outcome, StatementCall, check_write, write
from router.write_path import ALL_OLD

PREPARED_LENGTH_MAX: Final = 16 * 1024
"""Characters of statements after which others get their turn: some tens of milliseconds at the worst."""

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
        self._capacities = [b""] * self._left

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
                "BatchExecuteStatement API does not support both read and write operations "
                "in the same request."
            )
        for place, one in enumerate(self._prepared):
            if isinstance(one, ValidationError):
                self._end(place, None, one)
            else:
                self._execute(place, one)

    def _execute(self, place: int, statement: Statement) -> None:
        member = self._request.Statements[place]

        def ended(part: StatementCall, outcome: Outcome | DynamoDBError) -> None:
            self._end(place, part.table_name, outcome)

        def run(part: StatementCall) -> None:
            if isinstance(statement, Select):
                options = SelectOptions(strong=member.ConsistentRead is True, in_batch=True)
                select(part, statement, options)
            else:
                returns_old = member.ReturnValuesOnConditionCheckFailure == ALL_OLD
                write(part, statement, return_on_failure=returns_old)

        StatementCall(self._call, "BatchExecuteStatement", ended).start(statement, run)

    def _end(self, place: int, table: str | None, outcome: Outcome | DynamoDBError) -> None:
        members: dict[str, Any] = {}
        if isinstance(outcome, DynamoDBError):
            members["Error"] = _error(outcome)
        else:
            show = self._request.ReturnConsumedCapacity
            self._capacities[place] = consumed_capacity(
                show, outcome.table, outcome.units, outcome.indexes
            )
            if outcome.items:
                members["Item"] = msgspec.Raw(outcome.items[0])
        if table is not None:
            members["TableName"] = table
        self._responses[place] = msgspec.json.encode(members)
        self._left -= 1
        if self._left == 0:
            self._answer()

    def _answer(self) -> None:
        parts = [b'"Responses":[%b]' % b",".join(self._responses)]
        if self._request.ReturnConsumedCapacity in ("TOTAL", "INDEXES"):
            # One for each statement that was executed, in their order.
            consumed = [
                capacity.removeprefix(b'"ConsumedCapacity":')
                for capacity in self._capacities
                if capacity
            ]
            parts.append(b'"ConsumedCapacity":[%b]' % b",".join(consumed))
        self._call.succeed(b"{%b}" % b",".join(parts))


def _error(error: DynamoDBError) -> dict[str, Any]:
    members: dict[str, Any] = {"Code": _CODES.get(error.code, _INTERNAL)}
    if error.message:
        members["Message"] = error.message
    members.update(error.extra)
    return members
