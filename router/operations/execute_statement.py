"""ExecuteStatement: one PartiQL statement."""

from collections.abc import Sequence

from datamodel.attribute_values import AttributeValue
from datamodel.errors import DynamoDBError
from datamodel.partiql import Select, prepare_parameters, prepare_statement
from datamodel.requests import ExecuteStatementInput
from router.capacity import consumed_capacity
from router.context import Call
from router.statements.statement_pages import SelectOptions, select
from router.statements.statements import (
    Outcome,
    StatementCall,
    check_write,
    make_token,
    read_token,
    statement_digest,
    write,
)
from router.write_path import ALL_OLD


def handle(request: ExecuteStatementInput, call: Call) -> None:
    """Read a page, or write one item."""
    parameters: Sequence[AttributeValue] = ()

    def read_parameters() -> Sequence[AttributeValue]:
        nonlocal parameters
        parameters = prepare_parameters(request.Parameters)
        return parameters

    statement = prepare_statement(request.Statement, read_parameters)
    check_write(statement)

    def ended(_: StatementCall, outcome: Outcome | DynamoDBError) -> None:
        if isinstance(outcome, DynamoDBError):
            call.fail(outcome)
            return
        parts = [b'"Items":[%b]' % b",".join(outcome.items)]
        if outcome.last_key is not None:
            token = make_token(statement_digest(request.Statement, parameters), outcome.last_key)
            parts.append(b'"NextToken":"%b"' % token.encode())
            parts.append(b'"LastEvaluatedKey":' + outcome.last_key)
        capacity = consumed_capacity(
            request.ReturnConsumedCapacity, outcome.table, outcome.units, outcome.indexes
        )
        if capacity:
            parts.append(capacity)
        call.succeed(b"{%b}" % b",".join(parts))

    def run(part: StatementCall) -> None:
        if isinstance(statement, Select):
            start = None
            if request.NextToken is not None:
                digest = statement_digest(request.Statement, parameters)
                start = read_token(request.NextToken, digest)
            options = SelectOptions(request.ConsistentRead is True, request.Limit or 0, start)
            select(part, statement, options)
        else:
            returns_old = request.ReturnValuesOnConditionCheckFailure == ALL_OLD
            write(part, statement, return_on_failure=returns_old)

    StatementCall(call, "ExecuteStatement", ended).start(statement, run)
