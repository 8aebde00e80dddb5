"""Pages of SELECT: ranges of keys read one after the other until Limit, 1 MB or the end.

The pages of Query and Scan have one range; a SELECT may name several partition keys, and so has as many. A
position in them is a key, as there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from datamodel.errors import DynamoDBError, ResourceNotFoundError, ValidationError
from datamodel.expressions import parse_condition
from datamodel.expressions.operands import compile_path
from datamodel.expressions.syntax_tree import And
from datamodel.items import decode_item, encode_item, normalise_item
from datamodel.key_encoding import KeySchema, table_range
from datamodel.limits import EXPRESSION_SIZE_BYTES_MAX
from datamodel.partiql import ExpressionWriter, KeyPlan, Select, plan_keys, whole_key
from datamodel.partiql.statements import Column
from router.capacity import read_units
from router.paging.index_reads import (
    ReadTarget,
    check_index_start_key,
    check_table_start_key,
    encode_position,
    read_target,
)
from router.paging.item_pages import PageReader
from router.paging.page_requests import PageRequest
from router.partition_map import TableEntry
from router.statements.statements import OTHER_TOKEN, Outcome, StatementCall

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
        target = read_target(entry, statement.index)
        if target is None:
            raise ValidationError("The table does not have the specified index")
        _SelectReader(call, statement, options, entry, target).begin(entry)

    call.with_table(statement.table, run)


class _SelectReader(PageReader):
    """One page of a SELECT in the making."""

    __slots__ = ("_columns", "_options", "_order", "_plan", "_rest", "_statement_call", "_target")

    def __init__(
        self,
        call: StatementCall,
        statement: Select,
        options: SelectOptions,
        entry: TableEntry,
        target: ReadTarget,
    ) -> None:
        schema = target.schema
        entry.check_scalar_keys(statement.nested_attributes)
        plan = plan_keys(statement.where, schema, target.part)
        plan.check_no_overlap(entry.table_id)
        order, reverse = _order_of(statement, plan, schema)
        page = PageRequest(strong=options.strong, reverse=reverse, limit=options.limit)
        columns = _add_target(
            page, plan, target, statement.columns, has_indexes=bool(entry.local_indexes)
        )
        super().__init__(call, page, self._first_range)
        self._statement_call = call
        self._options = options
        self._plan = plan
        self._order = order
        self._columns = columns
        self._target = target
        self._rest: list[Range] = []

    def begin(self, entry: TableEntry) -> None:
        """Read."""
        self._begin(entry)

    def _first_range(self, entry: TableEntry) -> Range:
        if read_target(entry, self._target.index_name) != self._target:
            # Deleted and created anew with other keys: the plan is one for the table that is gone.
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
            check_index_start_key(self._target, key)
            check_table_start_key(entry.schema, key)
        except DynamoDBError as error:
            raise ValidationError(OTHER_TOKEN) from error
        position = encode_position(entry, self._target, key)
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
        strong, target = self._request.strong, self._target
        units = read_units(self._size, strong)
        entry.usage.read_units += units
        indexes: tuple[tuple[str, float], ...] = ()
        if target.index_name is not None:
            indexes = ((target.index_name, units),)
            units = self._fetched_units * (1.0 if strong else 0.5)
            entry.usage.read_units += units
        last_key = None
        if last is not None:
            evaluated = decode_item(last)
            key = {name: evaluated[name] for name in target.start_names}
            if self._rest or self._may_go_on(encode_position(entry, target, key)):
                last_key = encode_item(key)
        items = self._shaped_items()
        self._statement_call.end(Outcome(entry.name, units, items, last_key, indexes))

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


def _add_target(
    page: PageRequest,
    plan: KeyPlan,
    target: ReadTarget,
    columns: Sequence[Column] | None,
    *,
    has_indexes: bool,
) -> Sequence[Column] | None:
    """Put what is read into the request; returns the columns to pick here, None if there is no need.

    Raises:
        ValidationError: A filter beside a key condition names attributes that the index does not project.
    """
    page.target = target
    if plan.is_scan and has_indexes:
        page.part = target.part
    writer = ExpressionWriter()
    if plan.filter is not None:
        page.filter_text = writer.condition(plan.filter)
        page.filter = parse_condition(page.filter_text, writer.names, "FilterExpression")
    if target.projected is not None:
        _check_filter(plan, target)
        names = [str(column.path.elements[0]) for column in columns or ()]
        page.fetch = target.must_fetch(None, None, names, None)
        if page.fetch and plan.filter is not None:
            # The filter sees what the index has; columns are fetched from the table.
            writer = ExpressionWriter(projected=target.projected)
            page.filter_text = writer.condition(plan.filter)
            writer.projected = None
    page.values = writer.values
    if columns is not None:
        columns = _add_projection(page, columns, writer)
    page.names = writer.names
    return columns


def _add_projection(
    page: PageRequest, columns: Sequence[Column], writer: ExpressionWriter
) -> Sequence[Column] | None:
    roots = dict.fromkeys(str(column.path.elements[0]) for column in columns)
    before = len(writer.names)
    text = writer.projection(roots)
    if len(text) > EXPRESSION_SIZE_BYTES_MAX:
        writer.names = dict(list(writer.names.items())[:before])
        return columns
    page.projection_text = text
    return None if all(len(column.path.elements) == 1 for column in columns) else columns


def _check_filter(plan: KeyPlan, target: ReadTarget) -> None:
    """What the service says of attributes that the index does not project, in a condition that must always hold.

    Inside of an OR, and without a key condition, they count as absent.
    """
    if target.projected is None or not plan.conditions_beside_key:
        return
    writer = ExpressionWriter()
    text = writer.condition(And(plan.conditions_beside_key))
    named = parse_condition(text, writer.names, "FilterExpression").top_level_attributes
    missing = [name for name in named if name not in target.projected]
    if missing:
        raise ValidationError(
            "One or more parameter values were invalid: "
            f"Secondary index {target.index_name} does not project one or more filter "
            f"attributes: [{', '.join(missing)}]"
        )


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
