"""CreateTable with local indexes: what comes of it, and every refusal in the service's order and words."""

import json

import pytest

from datamodel.errors import ValidationError
from datamodel.local_indexes import LocalIndex
from datamodel.shapes import decode_request
from datamodel.table_requests import new_table

INVALID = "One or more parameter values were invalid: "


def keys(*names):
    return [
        {"AttributeName": name, "KeyType": kind}
        for name, kind in zip(names, ("HASH", "RANGE", "RANGE"), strict=False)
    ]


def index(name="idx", schema=("pk", "n"), projection="ALL", **more):
    return {
        "IndexName": name,
        "KeySchema": keys(*schema) if isinstance(schema, tuple) else schema,
        "Projection": {"ProjectionType": projection, **more} if projection else more,
    }


def create(*indexes, names="pk sk n", schema=("pk", "sk"), **members):
    body = {
        "TableName": "orders",
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": "N" if name == "n" else "S"}
            for name in names.split()
        ],
        "KeySchema": keys(*schema),
        "BillingMode": "PAY_PER_REQUEST",
        "LocalSecondaryIndexes": list(indexes),
        **members,
    }
    request = decode_request("CreateTable", json.dumps(body).encode())
    return new_table(request, "orders", table_id=256, uuid="u-u", now_ms=1_000)


def test_local_indexes_of_all_projections():
    table = create(
        index("one"),
        index("two", ("pk", "x"), "INCLUDE", NonKeyAttributes=["b", "a"]),
        index("three", ("pk", "sk"), "KEYS_ONLY"),
        names="pk sk n x",
    )
    assert table.local_indexes == (
        LocalIndex("one", "n", "N", "ALL"),
        LocalIndex("two", "x", "S", "INCLUDE", ("b", "a")),
        LocalIndex("three", "sk", "S", "KEYS_ONLY"),
    )


def test_five_indexes_with_twenty_attributes_each():
    table = create(
        *(
            index(f"i-{i}", projection="INCLUDE", NonKeyAttributes=[f"{i}-{n}" for n in range(20)])
            for i in range(5)
        )
    )
    assert sum(len(index.non_key_attributes) for index in table.local_indexes) == 100


SAME = "Both the Hash Key and the Range Key element in the KeySchema have the same name"
RANGE_FIRST = [
    {"AttributeName": "pk", "KeyType": "RANGE"},
    {"AttributeName": "n", "KeyType": "RANGE"},
]
HASH_TWICE = [
    {"AttributeName": "pk", "KeyType": "HASH"},
    {"AttributeName": "n", "KeyType": "HASH"},
]


@pytest.mark.parametrize(
    ("indexes", "members", "message"),
    [
        ([], {}, INVALID + "List of LocalSecondaryIndexes is empty"),
        (
            [index()],
            {"schema": ("pk",), "names": "pk n"},
            INVALID
            + "Table KeySchema does not have a range key, which is required when specifying a "
            "LocalSecondaryIndex",
        ),
        (
            [index(schema=("pk", "zz"))],
            {},
            INVALID + "Some index key attributes are not defined in AttributeDefinitions. "
            "Keys: [pk, zz], AttributeDefinitions: [pk, sk, n]",
        ),
        ([index(schema=("pk", "pk"))], {}, SAME),
        (
            [index(schema=RANGE_FIRST)],
            {},
            "Invalid KeySchema: The first KeySchemaElement is not a HASH key type",
        ),
        (
            [index(schema=HASH_TWICE)],
            {},
            "Invalid KeySchema: The second KeySchemaElement is not a RANGE key type",
        ),
        (
            [index(schema=("pk",))],
            {},
            INVALID + "Index KeySchema does not have a range key for index: idx",
        ),
        (
            [index(schema=("sk", "n"))],
            {},
            INVALID
            + "Index KeySchema does not have the same leading hash key as table KeySchema for "
            "index: idx. index hash key: sk, table hash key: pk",
        ),
        ([index(projection=None)], {}, INVALID + "Unknown ProjectionType: null"),
        (
            [index(projection="KEYS_ONLY", NonKeyAttributes=["a"])],
            {},
            INVALID + "ProjectionType is KEYS_ONLY, but NonKeyAttributes is specified",
        ),
        (
            [index(NonKeyAttributes=["a"])],
            {},
            INVALID + "ProjectionType is ALL, but NonKeyAttributes is specified",
        ),
        (
            [index(projection="INCLUDE")],
            {},
            INVALID + "ProjectionType is INCLUDE, but NonKeyAttributes is not specified",
        ),
        ([index(), index()], {}, INVALID + "Duplicate index name: idx"),
        (
            [index(f"i-{number}") for number in range(6)],
            {},
            INVALID + "Number of LocalSecondaryIndexes exceeds per-table limit of 5",
        ),
        # A duplicate name is found before there are too many.
        ([index()] * 6, {}, INVALID + "Duplicate index name: idx"),
        (
            [index()],
            {"names": "pk sk n x"},
            INVALID
            + "Some AttributeDefinitions are not used. AttributeDefinitions: [pk, sk, n, x], "
            "keys used: [pk, sk, n]",
        ),
        # Local indexes are looked at before global ones.
        (
            [index(projection=None)],
            {"GlobalSecondaryIndexes": []},
            INVALID + "Unknown ProjectionType: null",
        ),
        (
            [index()],
            {"GlobalSecondaryIndexes": []},
            INVALID + "List of GlobalSecondaryIndexes is empty",
        ),
    ],
)
def test_refusals(indexes, members, message):
    with pytest.raises(ValidationError) as caught:
        create(*indexes, **members)
    assert caught.value.message == message


def test_an_index_key_schema_of_three_elements():
    with pytest.raises(ValidationError) as caught:
        create(index(schema=("pk", "n", "sk")))
    assert caught.value.message.endswith(
        "at 'localSecondaryIndexes.1.member.keySchema' failed to satisfy constraint: Member must have "
        "length less than or equal to 2"
    )
