"""What the service enforces beyond its published model, and in which order it says so.

`service_model.json` is the published model. The running service is stricter in places and prints the
constraints in an order of its own, which is part of its messages; both are written down here, by member,
so that the validator and the generated request types take them from one place.

Sources: messages recorded on the service by the authors of dynalite and of dynamodb-conformance (2026).
"""

from typing import Any, Final

# Operations of this release; any other operation of the model is known but not implemented.
IMPLEMENTED_OPERATIONS: Final = (
    "CreateTable",
    "DescribeTable",
    "ListTables",
    "DeleteTable",
    "UpdateTable",
    "TagResource",
    "UntagResource",
    "ListTagsOfResource",
    "DescribeLimits",
    "DescribeEndpoints",
    "PutItem",
    "GetItem",
    "UpdateItem",
    "DeleteItem",
    "Query",
    "Scan",
    "BatchGetItem",
    "BatchWriteItem",
    "ExecuteStatement",
    "BatchExecuteStatement",
)

# Requests on items: decoded straight into their type, because they are the hot path.
ITEM_OPERATIONS: Final = frozenset(
    ("PutItem", "GetItem", "UpdateItem", "DeleteItem", "Query", "Scan")
)
# The same for several tables at a time, whose names are the keys of RequestItems.
BATCH_OPERATIONS: Final = frozenset(("BatchGetItem", "BatchWriteItem"))
# The same with a statement, which names its table itself.
STATEMENT_OPERATIONS: Final = frozenset(("ExecuteStatement",))

TABLE_NAME_PATTERN: Final = "[a-zA-Z0-9_.-]+"
TABLE_NAME_LENGTH_MIN: Final = 3
TABLE_NAME_LENGTH_MAX: Final = 255

# A message lists no more failures than this.
FAILURES_MAX: Final = 10

# Order of an enum's values in "Member must satisfy enum value set: [...]" where it is not the model's.
ENUM_ORDER: Final[dict[str, tuple[str, ...]]] = {
    "ComparisonOperator": (
        "IN",
        "NULL",
        "BETWEEN",
        "LT",
        "NOT_CONTAINS",
        "EQ",
        "GT",
        "NOT_NULL",
        "NE",
        "LE",
        "BEGINS_WITH",
        "GE",
        "CONTAINS",
    ),
    "ConditionalOperator": ("OR", "AND"),
    "ProjectionType": ("ALL", "INCLUDE", "KEYS_ONLY"),
    "ReturnValue": ("ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW"),
    "ScalarAttributeType": ("B", "N", "S"),
    "Select": ("SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES"),
}

# Members that are reported first, in this order; the others follow as the model lists them.
MEMBER_ORDER: Final[dict[str, tuple[str, ...]]] = {
    "BatchGetItemInput": ("ReturnConsumedCapacity",),
    "BatchWriteItemInput": ("ReturnConsumedCapacity", "ReturnItemCollectionMetrics"),
    "CreateTableInput": (
        "AttributeDefinitions",
        "TableName",
        "ProvisionedThroughput",
        "KeySchema",
        "GlobalSecondaryIndexes",
    ),
    "DeleteItemInput": ("ReturnValues", "ReturnConsumedCapacity", "TableName", "Key"),
    "GetItemInput": ("ReturnConsumedCapacity", "AttributesToGet", "TableName", "Key"),
    "ProvisionedThroughput": ("WriteCapacityUnits", "ReadCapacityUnits"),
    "PutItemInput": ("ReturnValues", "ReturnConsumedCapacity", "TableName", "Item"),
    "QueryInput": ("Limit", "ReturnConsumedCapacity", "AttributesToGet", "QueryFilter", "Select"),
    "ScanInput": ("Limit", "ReturnConsumedCapacity", "AttributesToGet", "Segment", "Select"),
    "UpdateItemInput": (
        "ReturnConsumedCapacity",
        "TableName",
        "ReturnValues",
        "ConditionalOperator",
        "Key",
    ),
}

# The same in the validation layer of 2026 (`wording`), where it is another one.
_NEWER_WRITE_ORDER: Final = (
    "ReturnConsumedCapacity",
    "ReturnValues",
    "ReturnItemCollectionMetrics",
    "ConditionalOperator",
    "TableName",
)
NEWER_MEMBER_ORDER: Final[dict[str, tuple[str, ...]]] = {
    "BatchGetItemInput": ("RequestItems",),
    "DeleteItemInput": (*_NEWER_WRITE_ORDER, "Key"),
    "PutItemInput": (*_NEWER_WRITE_ORDER, "Item"),
    "UpdateItemInput": (*_NEWER_WRITE_ORDER, "Key"),
}
# Enums that it names without the member and its value, in its own order and spelling.
NEWER_ENUMS: Final[dict[str, tuple[str, ...]]] = {
    "ConditionalOperator": ("ALL", "OR"),
    "ReturnValue": ("ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATE_NEW", "NONE"),
}

# Constraints that a shape has on top of the model's.
SHAPE_CONSTRAINTS: Final[dict[str, dict[str, Any]]] = {"AttributeNameList": {"max": 255}}

# Constraints of the model that the service does not enforce as such: the operations concerned have rules and
# words of their own. Source: findings on the service published in 2026 by the authors of an AWS controller; for
# batches, tests of the parity suite for DynamoDB.
LOOSE_CONSTRAINTS: Final[dict[str, tuple[str, ...]]] = {
    "BatchGetRequestMap": ("min",),
    "BatchWriteItemRequestMap": ("min",),
    "TableClass": ("enum",),
    "Tag": ("required",),
    "TagKeyString": ("min", "max"),
    "TagValueString": ("min", "max"),
}

# Constraints that a member has on top of its shape's. Index keys of global indexes may have several
# attributes (up to four of each kind), so only tables and local indexes stop at two.
MEMBER_CONSTRAINTS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("CreateTableInput", "KeySchema"): {"max": 2},
    ("LocalSecondaryIndex", "KeySchema"): {"max": 2},
}

# Members that a request needs unless another member is present: CreateTable either defines a table or makes
# a replica of the one that GlobalTableSourceArn names.
REQUIRED_UNLESS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "CreateTableInput": (("AttributeDefinitions", "KeySchema"), "GlobalTableSourceArn"),
}


# What the service has and its published model has not, by structure. Source: measured on the service with raw
# requests by the authors of ExtendDB (pull request 320, August 2026).
UNPUBLISHED_MEMBERS: Final[dict[str, dict[str, str]]] = {
    "CreateTableInput": {"TableThroughputMode": "BillingMode"},
    "TableDescription": {"TableThroughputModeSummary": "TableThroughputModeSummary"},
    "UpdateTableInput": {"TableThroughputMode": "BillingMode"},
}
UNPUBLISHED_SHAPES: Final[dict[str, dict[str, Any]]] = {
    "TableThroughputModeSummary": {
        "type": "structure",
        "members": {
            "TableThroughputMode": "BillingMode",
            "LastUpdateToPayPerRequestDateTime": "Date",
        },
    },
}


def completed_shapes(shapes: dict[str, Any]) -> dict[str, Any]:
    """The model's shapes with what the service has besides."""
    completed = {**shapes, **UNPUBLISHED_SHAPES}
    for name, members in UNPUBLISHED_MEMBERS.items():
        shape = shapes[name]
        completed[name] = {**shape, "members": {**shape["members"], **members}}
    return completed


def enforced_shapes(published: dict[str, Any]) -> dict[str, Any]:
    """The model's shapes with the constraints that the service enforces: some more, some fewer."""
    shapes = completed_shapes(published)
    return {
        name: {
            part: value
            for part, value in {**shape, **SHAPE_CONSTRAINTS.get(name, {})}.items()
            if part not in LOOSE_CONSTRAINTS.get(name, ())
        }
        for name, shape in shapes.items()
    }
