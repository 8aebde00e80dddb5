"""Query: items of one partition key, in the order of the sort key."""

from collections.abc import Callable
from functools import partial

from datamodel.errors import ValidationError
from datamodel.expressions import (
    KeyCondition,
    KeyExpression,
    check_placeholders_allowed,
    parse_key_expression,
    read_placeholders,
)
from datamodel.key_encoding import KeySchema, collection_range
from datamodel.local_indexes import LocalIndex
from datamodel.requests import QueryInput
from router.context import Call
from router.legacy_parameters import (
    LegacyKeyConditions,
    attributes_expression,
    check_attributes_to_get,
    check_mixing,
    filter_condition,
)
from router.paging.index_reads import (
    Item,
    ReadTarget,
    check_index_start_key,
    check_table_start_key,
    encode_position,
    read_target,
    unknown_index,
)
from router.paging.item_pages import PageReader
from router.paging.page_requests import (
    add_expressions,
    begin_page,
    check_select,
    normalise_start_key,
)
from router.partition_map import TableEntry

_ONE_ROW = "The query can return at most one row and cannot be restarted"
_PREFIX = "1 validation error detected: "


def handle(request: QueryInput, call: Call) -> None:
    """Read a page of the item collection."""
    names, raw_values = request.ExpressionAttributeNames, request.ExpressionAttributeValues
    expressions = {
        "ProjectionExpression": request.ProjectionExpression,
        "FilterExpression": request.FilterExpression,
        "KeyConditionExpression": request.KeyConditionExpression,
    }
    check_mixing(
        expressions,
        {
            "AttributesToGet": request.AttributesToGet,
            "QueryFilter": request.QueryFilter,
            "ConditionalOperator": request.ConditionalOperator,
            "KeyConditions": request.KeyConditions,
        },
    )
    check_placeholders_allowed(names, raw_values, expressions)
    legacy = filter_condition(request.QueryFilter, request.ConditionalOperator)
    start_key = normalise_start_key(request.ExclusiveStartKey)
    if request.AttributesToGet is not None:
        check_attributes_to_get(request.AttributesToGet)
    count_only = check_select(
        request.Select,
        request.AttributesToGet is not None,
        request.ProjectionExpression is not None,
        request.IndexName is not None,
        _PREFIX,
    )
    if request.KeyConditionExpression is None and request.KeyConditions is None:
        raise ValidationError(
            "Either the KeyConditions or KeyConditionExpression parameter must be specified "
            "in the request."
        )
    values = read_placeholders(names, raw_values)
    page = begin_page(request, count_only, legacy, values)
    page.reverse = request.ScanIndexForward is False
    names_used: frozenset[str] = frozenset()
    values_used: frozenset[str] = frozenset()
    key_expression: KeyExpression | None = None
    if request.KeyConditionExpression is not None:
        key_expression = parse_key_expression(request.KeyConditionExpression, names)
        key_expression.check_values(values)
        names_used, values_used = key_expression.names_used, key_expression.values_used
    add_expressions(page, request, values, names_used, values_used)
    bind: Callable[[KeySchema, LocalIndex | None], KeyCondition]
    if key_expression is not None:
        key_expression.check_shape()
        key_attributes = key_expression.attributes
        bind = partial(key_expression.bind, values)
    else:
        assert request.KeyConditions is not None, "checked before"
        key_conditions = LegacyKeyConditions(request.KeyConditions)
        key_attributes = key_conditions.attributes
        bind = key_conditions.bind
    if request.AttributesToGet is not None:
        page.projection_text, page.names = attributes_expression(request.AttributesToGet)

    def range_of(entry: TableEntry) -> tuple[bytes, bytes]:
        target = read_target(entry, request.IndexName)
        if target is None:
            raise unknown_index(request.IndexName)
        schema = target.schema
        if start_key is not None:
            check_index_start_key(target, start_key, schema.partition_name in key_attributes)
        condition = bind(schema, target.index_of(entry))
        start, end = collection_range(
            entry.table_id, schema, condition.partition_value, condition.sort, part=target.part
        )
        if start_key is not None:
            position = _position(entry, target, start_key, condition, start, end)
            if page.reverse:
                end = position
            else:
                start = position + b"\x00"
        if page.projection is not None:
            entry.check_scalar_keys(page.projection.nested_attributes)
        if page.filter is not None:
            for name in schema.names:
                if name in page.filter.top_level_attributes:
                    what = "Filter Expression" if legacy is None else "QueryFilter"
                    raise ValidationError(
                        f"{what} can only contain non-primary key attributes: "
                        f"Primary key attribute: {name}"
                    )
            entry.check_scalar_keys(page.filter.nested_attributes)
        page.target = target
        page.fetch = target.must_fetch(
            request.Select, page.projection, request.AttributesToGet or (), page.filter
        )
        return start, end

    PageReader(call, page, range_of).read(request.TableName)


def _position(
    entry: TableEntry,
    target: ReadTarget,
    start_key: Item,
    condition: KeyCondition,
    start: bytes,
    end: bytes,
) -> bytes:
    """The start key as a keyspace key, which must lie where the query looks."""
    check_table_start_key(entry.schema, start_key)
    partition_name = entry.schema.partition_name
    same_partition = start_key[partition_name] == condition.partition_value
    if condition.sort is None:
        if not same_partition:
            raise ValidationError(
                "The provided starting key is outside query boundaries based on provided conditions"
            )
        if target.schema.sort_name is None:
            raise ValidationError(_ONE_ROW)
    else:
        # The sort key is judged by itself first, whatever the partition key.
        as_asked = {**start_key, partition_name: condition.partition_value}
        if not start <= encode_position(entry, target, as_asked) < end:
            raise ValidationError(
                "The provided starting key does not match the range key predicate"
            )
        if not same_partition:
            raise ValidationError(_ONE_ROW)
    return encode_position(entry, target, start_key)
