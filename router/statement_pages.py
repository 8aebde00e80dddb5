"""Pages of SELECT: ranges of keys read one after the other until Limit, 1 MB or the end.

The pages of Query and Scan have one range; a SELECT may name several partition keys, and so has as many. A
position in them is a key, as there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from datamodel.errors import DynamoDBError, ResourceNotFoundError, ValidationError
from datamodel.expressions import check_scalar_keys, parse_condition
from datamodel.expressions.operands import compile_path
from datamodel.items import decode_item, encode_item, normalise_item
from datamodel.key_encoding import KeySchema, check_key, encode_key, key_of, table_range
from datamodel.limits import EXPRESSION_SIZE_BYTES_MAX
from datamodel.partiql import ExpressionWriter, KeyPlan, Select, plan_keys, whole_key
from datamodel.partiql.statements import Column
from router.capacity import read_units
from router.item_pages import PageReader, PageRequest
from router.partition_map import TableEntry
from router.statements import OTHER_TOKEN, Outcome, StatementCall

Range = tuple[bytes, bytes]

_BATCH_KEY: Final = (
    "Select statements within BatchExecuteStatement must specify the primary key "
    "in the where clause."
)


@dataclass(frozen=True, slots=True)
class SelectOptions:
    """What the request says besides the statement.

    Attributes:
        strong: Whether leaders must answer.
        limit: Most items to evaluate, 0 for no limit.
        start: The key behind which to go on, as it came back from the client; None for the start.
        in_batch: Whether the statement must read one item by its key.
    """

    strong: bool = False
    limit: int = 0
    start: Any = None
    in_batch: bool = False


def select(call: StatementCall, statement: Select, options: SelectOptions) -> None:
    """Execute a read; the call ends with the page."""

    def run(entry: TableEntry) -> None:
        if options.in_batch and (
            statement.index is not None or whole_key(statement.where, entry.schema) is None
        ):
            raise ValidationError(_BATCH_KEY)
        if statement.index is not None:
            raise ValidationError("The table does not have the specified index")
        _SelectReader(call, statement, options, entry).begin(entry)

    call.with_table(statement.table, run)


class _SelectReader(PageReader):
    """One page of a SELECT in the making."""

    __slots__ = ("_columns", "_options", "_order", "_plan", "_rest", "_schema", "_statement_call")

    def __init__(
        self, call: StatementCall, statement: Select, options: SelectOptions, entry: TableEntry
    ) -> None:
        schema = entry.schema
        check_scalar_keys(statement.nested_attributes, schema.names)
        plan = plan_keys(statement.where, schema)
        plan.check_no_overlap(entry.table_id)
        order, reverse = _order_of(statement, plan, schema)
        page = PageRequest(strong=options.strong, reverse=reverse, limit=options.limit)
        columns = _add_expressions(page, plan, statement.columns)
        super().__init__(call, page, self._first_range)
        self._statement_call = call
        self._options = options
        self._plan = plan
        self._order = order
        self._columns = columns
        self._schema = schema
        self._rest: list[Range] = []

    def begin(self, entry: TableEntry) -> None:
        """Read."""
        self._begin(entry)

    def _first_range(self, entry: TableEntry) -> Range:
        if entry.schema != self._schema:
            # Deleted and created anew with another key: the plan is one for the table that is gone.
            raise ResourceNotFoundError
        plan, page = self._plan, self._request
        if plan.is_scan:
            ranges = [table_range(entry.table_id)]
        else:
            ranges = plan.ranges(entry.table_id, descending=page.reverse, order=self._order)
        if self._options.start is not None:
            ranges = self._behind(entry, ranges)
        if not ranges:
            return b"", b""
        self._rest = ranges[1:]
        return ranges[0]

    def _behind(self, entry: TableEntry, ranges: Sequence[Range]) -> list[Range]:
        """What is left of the ranges behind the key that the client gave back."""
        try:
            key, _ = normalise_item(self._options.start)
            check_key(self._schema, key)
        except DynamoDBError as error:
            raise ValidationError(OTHER_TOKEN) from error
        position = encode_key(entry.table_id, self._schema, key)
        for index, (start, end) in enumerate(ranges):
            if start <= position < end:
                left = (start, position) if self._request.reverse else (position + b"\x00", end)
                rest = ranges[index + 1 :]
                return [left, *rest] if left[0] < left[1] else list(rest)
        raise ValidationError(OTHER_TOKEN)

    def _finish(self, entry: TableEntry, last: bytes | None) -> None:
        if last is None and self._rest:
            self._start, self._end = self._rest.pop(0)
            self._call.ask(entry, self._make, self._page, self._request.strong)
            return
        units = read_units(self._size, self._request.strong)
        entry.usage.read_units += units
        last_key = None
        if last is not None:
            key = key_of(entry.schema, decode_item(last))
            if self._rest or self._may_go_on(encode_key(entry.table_id, entry.schema, key)):
                last_key = encode_item(key)
        self._statement_call.end(Outcome(entry.name, units, self._shaped_items(), last_key))

    def _may_go_on(self, position: bytes) -> bool:
        """Whether the last range has room for an item behind this key; one that pins the whole key has not."""
        if self._request.reverse:
            return self._start < position
        return position + b"\x00" < self._end

    def _shaped_items(self) -> Sequence[bytes]:
        if self._columns is None:
            return self._items
        getters = [(column.name, compile_path(column.path)) for column in self._columns]
        shaped = []
        for item in msgspec.json.decode(b"[%b]" % b",".join(self._items)):
            found = {}
            for name, get in getters:
                value = get(item, {})
                if value is not None:
                    found[name] = value
            shaped.append(encode_item(found))
        return shaped


def _add_expressions(
    page: PageRequest, plan: KeyPlan, columns: Sequence[Column] | None
) -> Sequence[Column] | None:
    """Put filter and projection into the request; returns the columns to pick here, None if there is no need."""
    writer = ExpressionWriter()
    if plan.filter is not None:
        page.filter_text = writer.condition(plan.filter)
        page.filter = parse_condition(page.filter_text, writer.names, "FilterExpression")
        page.values = writer.values
    if columns is not None:
        roots = dict.fromkeys(str(column.path.elements[0]) for column in columns)
        before = len(writer.names)
        text = writer.projection(roots)
        if len(text) <= EXPRESSION_SIZE_BYTES_MAX:
            page.projection_text = text
            if all(len(column.path.elements) == 1 for column in columns):
                columns = None
        else:
            writer.names = dict(list(writer.names.items())[:before])
    page.names = writer.names
    return columns


def _order_of(statement: Select, plan: KeyPlan, schema: KeySchema) -> tuple[str | None, bool]:
    """How ORDER BY orders partition keys (`asc`, `desc`, None for as they come), and whether to read backwards.

    Raises:
        ValidationError: The order asked for is not that of keys.
    """
    if not statement.order_by:
        return None, False
    directions: dict[str, bool] = {}
    for name, descending in statement.order_by:
        if name not in schema.names:
            raise ValidationError(
                f"Attribute {name} in ORDER BY clause must be part of the primary key"
            )
        directions.setdefault(name, descending)
    if plan.is_scan:
        raise ValidationError(
            "Must have at least one non-optional hash key condition in WHERE clause "
            "when using ORDER BY clause."
        )
    by_partition = directions.get(schema.partition_name)
    if by_partition is None and len(plan.partition_values) > 1:
        raise ValidationError(
            "Must have hash key in ORDER BY clause when more than one hash key condition specified "
            "in WHERE clause."
        )
    order = None if by_partition is None else ("desc" if by_partition else "asc")
    if schema.sort_name is None:
        return order, False
    # As recorded on the service: an ORDER BY that does not name the sort key reads it backwards.
    return order, directions.get(schema.sort_name, True)
