"""DynamoDB's expression language: text to checked syntax tree to evaluation, all pure and cached.

Text goes through `tokens`, `parser` (to `syntax_tree`) and `checker`; `conditions`, `updates`, `projections`
and `key_conditions` compile what comes out to functions of an item and the request's values. Trees can also be
built without text: `Condition(tree)`, `Update(actions)`, `Projection(paths)`. `legacy` makes them from the
parameters that were there before expressions; `read_condition` and `read_update` take either kind.

Never here: reading items, tables or requests. Read `syntax_tree.py` first, then `checker.py`.
"""

from datamodel.expressions.conditions import Condition, parse_condition
from datamodel.expressions.key_conditions import (
    KeyCondition,
    KeyExpression,
    parse_key_condition,
    parse_key_expression,
)
from datamodel.expressions.legacy import read_condition, read_update
from datamodel.expressions.placeholders import (
    check_placeholders,
    check_placeholders_allowed,
    check_scalar_keys,
    read_placeholders,
)
from datamodel.expressions.projections import Projection, parse_projection
from datamodel.expressions.updates import Update, UpdateResult, parse_update

__all__ = [
    "Condition",
    "KeyCondition",
    "KeyExpression",
    "Projection",
    "Update",
    "UpdateResult",
    "check_placeholders",
    "check_placeholders_allowed",
    "check_scalar_keys",
    "parse_condition",
    "parse_key_condition",
    "parse_key_expression",
    "parse_projection",
    "parse_update",
    "read_condition",
    "read_placeholders",
    "read_update",
]
