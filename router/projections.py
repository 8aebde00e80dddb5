"""What GetItem, and BatchGetItem for each table, shall give of an item: parameters old and new."""

from collections.abc import Sequence
from typing import Protocol

from datamodel.expressions import (
    Projection,
    check_placeholders,
    check_placeholders_allowed,
    parse_projection,
    read_placeholders,
)
from router.legacy_parameters import attributes_projection, check_attributes_to_get, check_mixing


class ProjectionRequest(Protocol):
    """Members that say what is wanted of an item."""

    @property
    def AttributesToGet(self) -> Sequence[str] | None: ...  # noqa: D102, N802 - the API's own names

    @property
    def ProjectionExpression(self) -> str | None: ...  # noqa: D102, N802

    @property
    def ExpressionAttributeNames(self) -> dict[str, str] | None: ...  # noqa: D102, N802


def check_projection_parameters(asked: ProjectionRequest) -> None:
    """Check which parameters come together, before any value is looked at.

    Raises:
        ValidationError: With the service's text.
    """
    expressions = {"ProjectionExpression": asked.ProjectionExpression}
    check_mixing(expressions, {"AttributesToGet": asked.AttributesToGet})
    check_placeholders_allowed(asked.ExpressionAttributeNames, None, expressions)


def check_projections_together(asked: Sequence[ProjectionRequest]) -> None:
    """Check that no table of a batch has the old parameter while another one has the new.

    Raises:
        ValidationError: With the service's text.

    Source: tests of the parity suite for DynamoDB.
    """
    old = [one.AttributesToGet for one in asked if one.AttributesToGet is not None]
    new = [one.ProjectionExpression for one in asked if one.ProjectionExpression is not None]
    if old and new:
        check_mixing({"ProjectionExpression": new[0]}, {"AttributesToGet": old[0]})


def read_projection(asked: ProjectionRequest) -> Projection | None:
    """The projection that is asked for, checked as far as it can be without a table; None for whole items.

    Raises:
        ValidationError: With the service's text.
    """
    if asked.AttributesToGet is not None:
        check_attributes_to_get(asked.AttributesToGet)
        return attributes_projection(asked.AttributesToGet)
    if asked.ProjectionExpression is None:
        return None
    names = asked.ExpressionAttributeNames
    read_placeholders(names, None)
    projection = parse_projection(asked.ProjectionExpression, names)
    check_placeholders(names, None, projection.names_used, ())
    return projection
