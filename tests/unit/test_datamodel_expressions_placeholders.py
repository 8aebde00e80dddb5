"""ExpressionAttributeNames and ExpressionAttributeValues."""

import pytest

from datamodel.errors import ValidationError
from datamodel.expressions import (
    check_placeholders,
    check_placeholders_allowed,
    check_scalar_keys,
    parse_condition,
    parse_projection,
    parse_update,
    read_placeholders,
)

VALUE = {"S": "x"}


def message_of(function, *arguments):
    with pytest.raises(ValidationError) as caught:
        function(*arguments)
    return caught.value.message


@pytest.mark.parametrize(
    ("names", "values", "expressions", "message"),
    [
        (
            {"#a": "a"},
            None,
            {"ConditionExpression": None},
            "ExpressionAttributeNames can only be specified when using expressions",
        ),
        (
            {},
            {},
            {"ConditionExpression": None},
            "ExpressionAttributeNames can only be specified when using expressions",
        ),
        (
            None,
            {":a": VALUE},
            {"ConditionExpression": None},
            "ExpressionAttributeValues can only be specified when using expressions: "
            "ConditionExpression is null",
        ),
        (
            None,
            {":a": VALUE},
            {"UpdateExpression": None, "ConditionExpression": None},
            "ExpressionAttributeValues can only be specified when using expressions: "
            "UpdateExpression and ConditionExpression are null",
        ),
        (
            {"#a": "a"},
            {":a": VALUE},
            {"ProjectionExpression": "a", "FilterExpression": None, "KeyConditionExpression": None},
            "ExpressionAttributeValues can only be specified when using expressions: "
            "FilterExpression and KeyConditionExpression are null",
        ),
    ],
)
def test_placeholders_need_an_expression(names, values, expressions, message):
    assert message_of(check_placeholders_allowed, names, values, expressions) == message


@pytest.mark.parametrize(
    ("names", "values", "expressions"),
    [
        (None, None, {"ConditionExpression": None}),
        ({}, {}, {"ConditionExpression": ""}),
        ({"#a": "a"}, None, {"ProjectionExpression": "a", "FilterExpression": None}),
        (None, {":a": VALUE}, {"ConditionExpression": "a = :a", "UpdateExpression": None}),
    ],
)
def test_placeholders_with_an_expression(names, values, expressions):
    check_placeholders_allowed(names, values, expressions)


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        ({}, None, "ExpressionAttributeNames must not be empty"),
        ({}, {}, "ExpressionAttributeNames must not be empty"),
        (None, {}, "ExpressionAttributeValues must not be empty"),
        ({"a": "a"}, {}, 'ExpressionAttributeNames contains invalid key: Syntax error; key: "a"'),
        ({"#": "a"}, None, 'ExpressionAttributeNames contains invalid key: Syntax error; key: "#"'),
        (
            {"#a-b": "a"},
            None,
            'ExpressionAttributeNames contains invalid key: Syntax error; key: "#a-b"',
        ),
        (
            {"#ä": "a"},
            None,
            'ExpressionAttributeNames contains invalid key: Syntax error; key: "#ä"',
        ),
        (
            {"#a\n": "a"},
            None,
            'ExpressionAttributeNames contains invalid key: Syntax error; key: "#a\n"',
        ),
        (
            None,
            {"a": VALUE},
            'ExpressionAttributeValues contains invalid key: Syntax error; key: "a"',
        ),
        (
            None,
            {"#a": VALUE},
            'ExpressionAttributeValues contains invalid key: Syntax error; key: "#a"',
        ),
        (
            {"#a": ""},
            None,
            "ExpressionAttributeNames contains invalid value: Empty attribute name for key #a",
        ),
        (
            {"#" + "a" * 255: "a"},
            None,
            "ExpressionAttributeNames contains invalid key: "
            "The expression attribute map contains a key that is too long; size of key: 256",
        ),
        (
            {"#" + "a" * 255 + "-x": "a"},
            None,
            "ExpressionAttributeNames contains invalid key: "
            "The expression attribute map contains a key that is too long; size of key: 258",
        ),
        (
            None,
            {":" + "a" * 255: VALUE},
            "ExpressionAttributeValues contains invalid key: "
            "The expression attribute map contains a key that is too long;",
        ),
        (
            {f"#{index:02}": "n" * 65_535 for index in range(33)},
            None,
            "ExpressionAttributeNames exceeds max size",
        ),
        (
            None,
            {":v": {"S": "v" * (2**21 - 1)}},
            "ExpressionAttributeValues exceeds max size",
        ),
        (
            {"#n": "n" * 65_535},
            {":v": {"S": "v" * (2**21 - 65_538)}},
            "Combined size of ExpressionAttributeNames and ExpressionAttributeValues "
            "exceeds max size",
        ),
    ],
)
def test_keys(names, values, message):
    assert message_of(read_placeholders, names, values) == message


def test_good_keys():
    read_placeholders(None, None)
    read_placeholders({"#a": "any thing .#!", "#1": "x", "#_": "é"}, {":a": VALUE, ":1_": VALUE})
    read_placeholders({"#" + "a" * 254: "n" * 65_535}, {":" + "a" * 254: VALUE})
    largest = {":v": {"S": "v" * (2**21 - 65_539)}}
    assert read_placeholders({"#n": "n" * 65_535}, largest) == largest
    assert "65536" in message_of(read_placeholders, {"#a": "n" * 65_536}, None)


def test_unused():
    names, values = {"#a": "a", "#b": "b"}, {":a": VALUE, ":b": VALUE}
    check_placeholders(names, values, {"#a", "#b"}, {":b", ":a"})
    check_placeholders(None, None, (), ())
    assert message_of(check_placeholders, names, values, {"#a"}, {":a"}) == (
        "Value provided in ExpressionAttributeNames unused in expressions: keys: {#b}"
    )
    assert message_of(check_placeholders, names, values, (), ()) == (
        "Value provided in ExpressionAttributeNames unused in expressions: keys: {#a, #b}"
    )
    assert message_of(check_placeholders, None, values, (), {":a"}) == (
        "Value provided in ExpressionAttributeValues unused in expressions: keys: {:b}"
    )


def test_used_by_several_expressions():
    names, values = {"#a": "a", "#b": "b", "#c": "c"}, {":a": VALUE, ":b": VALUE}
    update = parse_update("SET #a = :a", names)
    condition = parse_condition("#b = :b", names)
    projection = parse_projection("#c", names)
    check_placeholders(
        names,
        values,
        update.names_used | condition.names_used | projection.names_used,
        update.values_used | condition.values_used,
    )


def test_key_attributes_are_scalars():
    condition = parse_condition("a.b = :v AND c = :v AND d[0] = :v", None)
    check_scalar_keys(condition.nested_attributes, ("c",))
    expected = (
        "Key attributes must be scalars; list random access '[]' and map lookup '.' "
        "are not allowed: "
    )
    assert (
        message_of(check_scalar_keys, condition.nested_attributes, ("c", "d"))
        == expected + "Key: d"
    )
    assert message_of(check_scalar_keys, ("x",), ("x",), "IndexKey") == expected + "IndexKey: x"
