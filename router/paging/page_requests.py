"""What Query and Scan ask of each partition, and the checks of it that they share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from datamodel.errors import ValidationError
from datamodel.expressions import (
    Condition,
    Projection,
    check_placeholders,
    parse_condition,
    parse_projection,
)
from datamodel.items import normalise_item
from router.legacy_parameters import LegacyCondition
from router.paging.index_reads import ESK_INVALID, Item, ReadTarget

# Faults of values in a start key that the service names without those words before them: those of numbers, and
# of a set's members. Source: observed by the authors of dynalite.
_NAMED_BY_ITSELF = frozenset(
    (
        "One or more parameter values were invalid: An number set  may not be empty",
        "Input collection contains duplicates",
    )
)
_OF_NUMBERS = ("The parameter cannot be converted", "Number ", "Attempting to store more than 38")


class ReadRequest(Protocol):
    """Members that the requests of Query and Scan have."""

    @property
    def ConsistentRead(self) -> bool | None: ...  # noqa: D102, N802 - the API's own names, here and below

    @property
    def Limit(self) -> int | None: ...  # noqa: D102, N802

    @property
    def ReturnConsumedCapacity(self) -> str | None: ...  # noqa: D102, N802

    @property
    def FilterExpression(self) -> str | None: ...  # noqa: D102, N802

    @property
    def ProjectionExpression(self) -> str | None: ...  # noqa: D102, N802

    @property
    def ExpressionAttributeNames(self) -> dict[str, str] | None: ...  # noqa: D102, N802

    @property
    def ExpressionAttributeValues(self) -> dict[str, Any] | None: ...  # noqa: D102, N802


@dataclass(slots=True)
class PageRequest:
    """What Query and Scan ask of each partition.

    Attributes:
        strong: Whether leaders must answer.
        reverse: From the end downwards.
        limit: Most items to evaluate, 0 for no limit.
        count_only: Whether no items are returned.
        show_capacity: `ReturnConsumedCapacity`.
        filter: Checked filter, None if there is none.
        filter_text: Its text.
        projection: Checked projection, None if there is none.
        projection_text: Its text.
        names: ExpressionAttributeNames for both.
        values: Normal ExpressionAttributeValues for the filter.
        target: What is read, once the table is known.
        part: For `proto.messages.Query`, likewise.
        fetch: Likewise.
    """

    strong: bool = False
    reverse: bool = False
    limit: int = 0
    count_only: bool = False
    show_capacity: str | None = None
    filter: Condition | None = None
    filter_text: str | None = None
    projection: Projection | None = None
    projection_text: str | None = None
    names: dict[str, str] | None = None
    values: Mapping[str, Any] | None = None
    target: ReadTarget | None = None
    part: int = -1
    fetch: bool = False


def begin_page(
    request: ReadRequest,
    count_only: bool,
    legacy: LegacyCondition | None,
    values: Mapping[str, Any],
) -> PageRequest:
    """A page as asked for; expressions are still to be added.

    Args:
        request: The request.
        count_only: Whether no items are returned (`check_select`).
        legacy: Its filter of the kind from before expressions.
        values: Its normal ExpressionAttributeValues.
    """
    return PageRequest(
        strong=request.ConsistentRead is True,
        limit=request.Limit or 0,
        count_only=count_only,
        show_capacity=request.ReturnConsumedCapacity,
        names=request.ExpressionAttributeNames,
        values=values if legacy is None else legacy.values,
        filter=None if legacy is None else legacy.condition,
        filter_text=None if legacy is None else legacy.text,
    )


def add_expressions(
    page: PageRequest,
    request: ReadRequest,
    values: Mapping[str, Any],
    names_used: frozenset[str] = frozenset(),
    values_used: frozenset[str] = frozenset(),
) -> None:
    """Add filter and projection; then all placeholders must be used, if not there then by what was read before.

    Raises:
        ValidationError: With the service's text.
    """
    names = request.ExpressionAttributeNames
    if request.FilterExpression is not None:
        page.filter_text = request.FilterExpression
        page.filter = parse_condition(request.FilterExpression, names, "FilterExpression")
        page.filter.check_values(values)
        names_used = names_used | page.filter.names_used
        values_used = values_used | page.filter.values_used
    if request.ProjectionExpression is not None:
        page.projection_text = request.ProjectionExpression
        page.projection = parse_projection(request.ProjectionExpression, names)
        names_used = names_used | page.projection.names_used
    check_placeholders(names, request.ExpressionAttributeValues, names_used, values_used)


def check_select(
    select: str | None,
    has_attributes_to_get: bool,
    has_projection: bool,
    has_index: bool,
    prefix: str,
) -> bool:
    """Check `Select` against what else the request asks for; returns whether only a count is wanted.

    Args:
        select: `Select`, None for the default.
        has_attributes_to_get: Whether there is `AttributesToGet`.
        has_projection: Whether there is a `ProjectionExpression`.
        has_index: Whether there is an `IndexName`.
        prefix: What the service puts before these texts: something for Query, nothing for Scan.

    Raises:
        ValidationError: With the service's text.

    Source: texts as verified on the service by moto's tests.
    """
    if select is None:
        return False
    if select == "SPECIFIC_ATTRIBUTES":
        if not (has_attributes_to_get or has_projection):
            raise ValidationError(
                f"{prefix}Must specify the AttributesToGet or ProjectionExpression "
                "when choosing to get SPECIFIC_ATTRIBUTES"
            )
        return False
    what = "only the Count" if select == "COUNT" else select
    if has_attributes_to_get:
        raise ValidationError(
            f"{prefix}Cannot specify the AttributesToGet when choosing to get {what}"
        )
    if has_projection:
        raise ValidationError(
            f"{prefix}Cannot specify the ProjectionExpression when choosing to get {what}"
        )
    if select == "ALL_PROJECTED_ATTRIBUTES" and not has_index:
        raise ValidationError(
            f"{prefix}ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName"
        )
    return select == "COUNT"


def normalise_start_key(raw: Item | None) -> Item | None:
    """`ExclusiveStartKey` as a normal item.

    Raises:
        SerializationError, ValidationError: With the service's text.
    """
    if raw is None:
        return None
    try:
        return normalise_item(raw)[0]
    except ValidationError as error:
        if error.message in _NAMED_BY_ITSELF or error.message.endswith("contains duplicates."):
            raise
        if error.message.startswith(_OF_NUMBERS):
            raise
        raise ValidationError(
            f"{ESK_INVALID}: {error.message}", newer=f"{ESK_INVALID}: {error.newest}"
        ) from error
