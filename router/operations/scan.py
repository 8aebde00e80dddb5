"""Scan: all items of a table or of one segment of it, in the order of keys."""

from datamodel.errors import ValidationError
from datamodel.expressions import (
    check_placeholders_allowed,
    read_placeholders,
)
from datamodel.key_encoding import KeySchema, check_key, segment_range, table_range
from datamodel.requests import ScanInput
from router.context import Call
from router.legacy_parameters import (
    attributes_expression,
    check_attributes_to_get,
    check_mixing,
    filter_condition,
)
from router.paging.index_reads import (
    ESK_INVALID,
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


def handle(request: ScanInput, call: Call) -> None:
    """Read a page of the table."""
    names, raw_values = request.ExpressionAttributeNames, request.ExpressionAttributeValues
    expressions = {
        "ProjectionExpression": request.ProjectionExpression,
        "FilterExpression": request.FilterExpression,
    }
    check_mixing(
        expressions,
        {
            "AttributesToGet": request.AttributesToGet,
            "ScanFilter": request.ScanFilter,
            "ConditionalOperator": request.ConditionalOperator,
        },
    )
    check_placeholders_allowed(names, raw_values, expressions)
    if request.AttributesToGet is not None:
        check_attributes_to_get(request.AttributesToGet)
    legacy = filter_condition(request.ScanFilter, request.ConditionalOperator)
    start_key = normalise_start_key(request.ExclusiveStartKey)
    count_only = check_select(
        request.Select,
        request.AttributesToGet is not None,
        request.ProjectionExpression is not None,
        request.IndexName is not None,
        "",
    )
    _check_segment(request.Segment, request.TotalSegments)
    values = read_placeholders(names, raw_values)
    page = begin_page(request, count_only, legacy, values)
    add_expressions(page, request, values)
    if request.AttributesToGet is not None:
        page.projection_text, page.names = attributes_expression(request.AttributesToGet)

    def range_of(entry: TableEntry) -> tuple[bytes, bytes]:
        schema = entry.schema
        target = read_target(entry, request.IndexName)
        if target is None:
            raise unknown_index(request.IndexName)
        if request.Segment is None or request.TotalSegments is None:
            start, end = table_range(entry.table_id)
        else:
            start, end = segment_range(entry.table_id, request.Segment, request.TotalSegments)
        if start_key is not None:
            _check_start_key(schema, target, start_key)
            position = encode_position(entry, target, start_key)
            if not start <= position < end:
                raise ValidationError(
                    f"{ESK_INVALID}: Invalid ExclusiveStartKey. Please use ExclusiveStartKey with "
                    f"correct Segment. TotalSegments: {request.TotalSegments} "
                    f"Segment: {request.Segment}"
                )
            start = position + b"\x00"
        if page.projection is not None:
            entry.check_scalar_keys(page.projection.nested_attributes)
        if page.filter is not None:
            entry.check_scalar_keys(page.filter.nested_attributes)
        page.target = target
        page.part = target.part if entry.local_indexes else -1
        page.fetch = target.must_fetch(
            request.Select, page.projection, request.AttributesToGet or (), page.filter
        )
        return start, end

    PageReader(call, page, range_of).read(request.TableName)


def _check_start_key(schema: KeySchema, target: ReadTarget, start_key: Item) -> None:
    if target.index_name is not None:
        check_index_start_key(target, start_key)
        check_table_start_key(schema, start_key)
        return
    try:
        check_key(schema, start_key)
    except ValidationError as error:
        raise ValidationError(f"{ESK_INVALID}: {error.message}") from error


def _check_segment(segment: int | None, total: int | None) -> None:
    if segment is None:
        if total is not None:
            raise ValidationError(
                "The Segment parameter is required but was not present in the request "
                "when parameter TotalSegments is present"
            )
    elif total is None:
        raise ValidationError(
            "The TotalSegments parameter is required but was not present in the request "
            "when Segment parameter is present"
        )
    elif segment >= total:
        raise ValidationError(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
            f"Segment: {segment} is not less than TotalSegments: {total}"
        )
