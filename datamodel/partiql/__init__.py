"""PartiQL as the service speaks it: the text of a statement to a plan of reads or of one write, all pure.

Text goes through `tokens` and `parser` (to `syntax`); `values` makes attribute values of literals and
parameters, `conditions` makes the condition trees of `datamodel.expressions` of WHERE clauses, and `statements`
puts it together: what one request with these parameters asks for, checked as far as that goes without the
table. With the table's key, `key_plan` finds the ranges of keys that a SELECT has to read. `rendering` writes
trees as expression text, which is what storage nodes are asked.

Never here: reading tables or items. Read `syntax.py` first, then `statements.py`.

Source of texts and rules: the developer guide ("PartiQL - a SQL-compatible query language for Amazon
DynamoDB"), answers recorded on the service in public conformance suites, and for syntax errors the grammar of
the open-source PartiQL parser whose words the service repeats.
"""

from datamodel.partiql.key_plan import KeyPlan, plan_keys, split_key, whole_key
from datamodel.partiql.rendering import ExpressionWriter
from datamodel.partiql.statements import (
    Column,
    Delete,
    Insert,
    Select,
    Statement,
    Update,
    prepare_statement,
)
from datamodel.partiql.values import prepare_parameters

__all__ = [
    "Column",
    "Delete",
    "ExpressionWriter",
    "Insert",
    "KeyPlan",
    "Select",
    "Statement",
    "Update",
    "plan_keys",
    "prepare_parameters",
    "prepare_statement",
    "split_key",
    "whole_key",
]
