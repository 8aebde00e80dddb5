"""Every error that an expression can give before an item is looked at, to the letter and in the right order."""

import pytest

from datamodel.errors import ValidationError
from datamodel.expressions import parse_condition, parse_projection, parse_update

V = {
    ":s": {"S": "a"},
    ":s2": {"S": "b"},
    ":n": {"N": "1"},
    ":n2": {"N": "2"},
    ":b": {"B": "YQ=="},
    ":b2": {"B": "Yg=="},
    ":t": {"BOOL": True},
    ":z": {"NULL": True},
    ":l": {"L": []},
    ":m": {"M": {}},
    ":ss": {"SS": ["a"]},
    ":ns": {"NS": ["1"]},
    ":bs": {"BS": ["YQ=="]},
}
N = {"#a": "a", "#b": "b", "#three": "[3]", "#dot": "a.b"}


def check(kind, expression, names, values):
    if kind == "projection":
        parse_projection(expression, names)
    elif kind == "update":
        parse_update(expression, names).check_values(values)
    else:
        parse_condition(expression, names, "FilterExpression").check_values(values)


def error_of(kind, expression, names=N, values=V):
    """The service's error for an expression: parse, then check the values."""
    with pytest.raises(ValidationError) as caught:
        check(kind, expression, names, values)
    prefix = {
        "update": "Invalid UpdateExpression: ",
        "projection": "Invalid ProjectionExpression: ",
        "condition": "Invalid FilterExpression: ",
    }[kind]
    assert caught.value.code == "ValidationException"
    assert caught.value.message.startswith(prefix)
    return caught.value.message.removeprefix(prefix)


# --- conditions --------------------------------------------------------------------------------------------


def reserved(word):
    return f"Attribute name is a reserved keyword; reserved keyword: {word}"


def undefined_name(alias):
    return (
        "An expression attribute name used in the document path is not defined; "
        f"attribute name: {alias}"
    )


def undefined_value(name):
    return (
        f"An expression attribute value used in expression is not defined; attribute value: {name}"
    )


def misplaced(function):
    return f"The function is not allowed to be used this way in an expression; function: {function}"


def operand_count(function, count):
    return (
        "Incorrect number of operands for operator or function; "
        f"operator or function: {function}, number of operands: {count}"
    )


def operand_type(operator, kind):
    return (
        "Incorrect operand type for operator or function; "
        f"operator or function: {operator}, operand type: {kind}"
    )


def needs_path(function):
    return f"Operator or function requires a document path; operator or function: {function}"


def not_distinct(operator, path):
    return (
        "The first operand must be distinct from the remaining operands for this operator or "
        f"function; operator: {operator}, first operand: {path}"
    )


def bounds(rule, lower, upper):
    return (
        f"The BETWEEN operator requires {rule}; lower bound operand: AttributeValue: {lower}, "
        f"upper bound operand: AttributeValue: {upper}"
    )


SAME_TYPE = "same data type for lower and upper bounds"
ASCENDING = "upper bound to be greater than or equal to lower bound"
NO_INDEX = "List index is not within the allowable range; index: "
FOR_UPDATES = "The function is not allowed in a condition expression; function: "

CONDITIONS = [
    # reserved words, in the case in which they are written
    ("Name = :s", reserved("Name")),
    ("a.name = :s", reserved("name")),
    ("a[0].TTL = :s", reserved("TTL")),
    ("attribute_exists(views, #x)", reserved("views")),
    (":undefined < abOrT", reserved("abOrT")),
    ("#undefined = :undefined AND status = :s", reserved("status")),
    # list indexes
    ("a[4294967295] = :s", NO_INDEX + "[4294967295]"),
    ("a[99999999999999999999] = :s", NO_INDEX + "[99999999999999999999]"),
    # functions
    ("dog(a)", "Invalid function name; function: dog"),
    ("dog(a) = :s", "Invalid function name; function: dog"),
    ("ATTRIBUTE_EXISTS(a)", "Invalid function name; function: ATTRIBUTE_EXISTS"),
    ("attRIbute_exIsts((views), #x)", "Invalid function name; function: attRIbute_exIsts"),
    ("a=a and whatever((:things)) > a", "Invalid function name; function: whatever"),
    ("size(dog(a)) = :n", "Invalid function name; function: dog"),
    ("a < " + "f(" * 1355 + "b" + ")" * 1355, "Invalid function name; function: f"),
    ("if_not_exists(a, :s)", FOR_UPDATES + "if_not_exists"),
    ("if_not_exists(a, :s) = :s", FOR_UPDATES + "if_not_exists"),
    ("list_append(a, b) = :l", FOR_UPDATES + "list_append"),
    ("size(a)", misplaced("size")),
    ("a = :s AND size(a)", misplaced("size")),
    ("NOT (size(a))", misplaced("size")),
    ("a=a and attribute_exists((views), (#x)) > b", misplaced("attribute_exists")),
    ("attribute_not_exists(a) > b", misplaced("attribute_not_exists")),
    ("attribute_type(a, :s) = b", misplaced("attribute_type")),
    ("begins_with(a, b) > c", misplaced("begins_with")),
    ("contains(:undefined, c) > b", misplaced("contains")),
    ("size(contains(a, b)) > a", misplaced("contains")),
    ("a between b and attribute_exists(c)", misplaced("attribute_exists")),
    ("attribute_exists(c) between a and b", misplaced("attribute_exists")),
    ("a in (b, attribute_exists(c))", misplaced("attribute_exists")),
    ("attribute_exists(c) in (a, b)", misplaced("attribute_exists")),
    ("begins_with(a, contains(b, c))", misplaced("contains")),
    # the first fault in the text counts
    ("dog(a) AND name = :s", "Invalid function name; function: dog"),
    ("name = :s AND dog(a)", reserved("name")),
    ("a[4294967295] = :s AND name = :s", NO_INDEX + "[4294967295]"),
    ("contains(name, :s) > a", misplaced("contains")),
    # operators
    ("a<b " + "or (a<b " * 454 + ")" * 454, "TOO MANY"),
    ("not " * 1000 + "a<b", "TOO MANY"),
    ("a < " + "size(" * 680 + "b" + ")" * 680, "TOO MANY"),
    (" AND ".join(["a<b"] * 151), "TOO MANY"),
    # placeholders, operator by operator
    ("#x = :s", undefined_name("#x")),
    ("a.#x = :undefined", undefined_name("#x")),
    ("attribute_exists(#Pictures.RearView, :s) and a=a", undefined_name("#Pictures")),
    ("begins_with(Pictures.#RearView)", undefined_name("#RearView")),
    ("(#P between :lo and :hi) and (#PC in (:cat1, :cat2))", undefined_name("#P")),
    ("(a)between(b.c[45].#d)and(:s)", undefined_name("#d")),
    ("a = :undefined", undefined_value(":undefined")),
    (":x < :y", undefined_value(":x")),
    ("begins_with(:hello, #x, #y)", undefined_value(":hello")),
    ("a = :undefined AND #x = :s", undefined_value(":undefined")),
    ("a = :s AND #x = :undefined", undefined_name("#x")),
    ("a BETWEEN :s AND :undefined", undefined_value(":undefined")),
    ("a IN (:s, :undefined)", undefined_value(":undefined")),
    ("size(:undefined) = :n", undefined_value(":undefined")),
    # depth of paths
    (
        "a" + ".b" * 32 + " = :s",
        "The document path has too many nesting levels; nesting levels: 33",
    ),
    # numbers of operands
    ("attribute_exists(a, b) and c=c", operand_count("attribute_exists", 2)),
    ("attribute_not_exists(a, b)", operand_count("attribute_not_exists", 2)),
    ("attribute_type(a)", operand_count("attribute_type", 1)),
    ("begins_with(a)", operand_count("begins_with", 1)),
    ("begins_with(a, size(b), c)", operand_count("begins_with", 3)),
    ("contains(a)", operand_count("contains", 1)),
    ("size(a, b) > c", operand_count("size", 2)),
    ("attribute_exists(:s, b)", operand_count("attribute_exists", 2)),
    (
        "a IN (" + ", ".join([":n"] * 101) + ")",
        "The IN operator is provided with too many operands; number of operands: 101",
    ),
    # paths where paths are required
    ("attribute_exists(:s)", needs_path("attribute_exists")),
    ("attribute_not_exists(:s)", needs_path("attribute_not_exists")),
    ("attribute_not_exists(size(:s))", needs_path("attribute_not_exists")),
    # different operands
    ("a = a AND b = b", not_distinct("=", "[a]")),
    ("#a <> a", not_distinct("<>", "[a]")),
    ("a > #a", not_distinct(">", "[a]")),
    ("((a=a) OR (a=a))", not_distinct("=", "[a]")),
    ("(a) < (a)", not_distinct("<", "[a]")),
    ("contains(ab.bc[1].a, ab.bc[1].#a)", not_distinct("contains", "[ab, bc, [1], a]")),
    ("attribute_type(ab.bc[1].#a, ab.bc[1].a)", not_distinct("attribute_type", "[ab, bc, [1], a]")),
    ("begins_with(ab.bc[1].a, ab.bc[1].#a)", not_distinct("begins_with", "[ab, bc, [1], a]")),
    ("a BETWEEN a AND :s", not_distinct("BETWEEN", "[a]")),
    ("a IN (:s, b, a)", not_distinct("IN", "[a]")),
    # types
    *[
        (f"a {operator} :{kind}", operand_type(operator, shown))
        for operator in ("<", "<=", ">", ">=")
        for kind, shown in [
            ("t", "BOOL"),
            ("z", "NULL"),
            ("l", "L"),
            ("m", "M"),
            ("ss", "SS"),
            ("ns", "NS"),
            ("bs", "BS"),
        ]
    ],
    (":l < a", operand_type("<", "L")),
    ("a BETWEEN :l AND :m", operand_type("BETWEEN", "L")),
    (":t BETWEEN a AND b", operand_type("BETWEEN", "BOOL")),
    ("a BETWEEN :n AND :s", bounds(SAME_TYPE, "{N:1}", "{S:a}")),
    ("a BETWEEN :n2 AND :n", bounds(ASCENDING, "{N:2}", "{N:1}")),
    ("a BETWEEN :s2 AND :s", bounds(ASCENDING, "{S:b}", "{S:a}")),
    ("a BETWEEN :b2 AND :b", bounds(ASCENDING, "{B:Yg==}", "{B:YQ==}")),
    *[
        (f"begins_with({operands})", operand_type("begins_with", shown))
        for kind, shown in [("n", "N"), ("t", "BOOL"), ("l", "L"), ("m", "M"), ("ns", "NS")]
        for operands in (f"a, :{kind}", f":{kind}, a")
    ],
    ("begins_with(a, size(b)) and b=b", operand_type("begins_with", "N")),
    *[
        (f"attribute_type(a, :{kind})", operand_type("attribute_type", shown))
        for kind, shown in [("n", "N"), ("b", "B"), ("t", "BOOL"), ("z", "NULL"), ("ss", "SS")]
    ],
    ("attribute_type(a, size(b)) and b=b", operand_type("attribute_type", "N")),
    ("attribute_type(a, b)", operand_type("attribute_type", "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}")),
    (
        "attribute_type(a, :s)",
        "Invalid attribute type name found; type: a, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}",
    ),
    ("size(:n) > a", operand_type("size", "N")),
    ("size(:t) > a", operand_type("size", "BOOL")),
    ("size(:z) > a", operand_type("size", "NULL")),
    ("size(size(a)) > :n", operand_type("size", "N")),
    ("attribute_not_exists(size(:n))", operand_type("size", "N")),
    # the first operator with an error counts, whatever kind the error is of
    ("a < :l AND b = b", operand_type("<", "L")),
    ("b = b AND a < :l", not_distinct("=", "[b]")),
    ("a < :l AND #x = :s", operand_type("<", "L")),
    ("a = :undefined AND b = b", undefined_value(":undefined")),
    ("contains(a) AND a < :l", operand_count("contains", 1)),
]

TOO_MANY = "The expression contains too many operators; operator count: 301"


@pytest.mark.parametrize(("expression", "expected"), CONDITIONS)
def test_conditions(expression, expected):
    expected = TOO_MANY if expected == "TOO MANY" else expected
    assert error_of("condition", expression) == expected


@pytest.mark.parametrize(
    "expression",
    [
        ":s = :s",
        ":s < :s",
        "a[4294967294] = :s",
        "a" + ".b" * 31 + " = :s",
        "a IN (" + ", ".join([":n"] * 100) + ")",
        " AND ".join(["a<b"] * 150),
        "#dot = :s",
        "size(:s) = :n AND size(:ss) = :n AND size(:m) = :n AND size(:b) = :n AND size(:l) = :n",
        "a = :l AND a <> :m AND a IN (:t, :z)",
        "contains(a, :t) AND contains(:ss, a) AND contains(a, size(b))",
        "attribute_type(:s, :s3)",
        "size(a) = size(b) AND size(a) BETWEEN size(b) AND :n",
    ],
)
def test_conditions_without_errors(expression):
    parse_condition(expression, N).check_values({**V, ":s3": {"S": "BOOL"}})


def test_errors_that_need_no_values_are_raised_when_parsing():
    with pytest.raises(ValidationError, match="requires a document path"):
        parse_condition("attribute_exists(size(b))", None)
    condition = parse_condition("a = :s AND b = b", None)
    with pytest.raises(ValidationError, match="must be distinct"):
        condition.check_values(V)
    with pytest.raises(AssertionError):
        condition.evaluate({}, V)


# --- updates -----------------------------------------------------------------------------------------------


def section_type(section, kind):
    return (
        f"Incorrect operand type for operator or function; operator: {section}, "
        f"operand type: {kind}, typeSet: ALLOWED_FOR_{section}_OPERAND"
    )


def repeated(section):
    return f'The "{section}" section can only be used once in an update expression;'


def clash(what, one, two):
    return (
        f"Two document paths {what} with each other; must remove or rewrite one of these paths; "
        f"path one: {one}, path two: {two}"
    )


FOR_CONDITIONS = "The function is not allowed in an update expression; function: "

UPDATES = [
    (" set #x = :x set abOrt = true ", reserved("abOrt")),
    (" remove Absolute ", reserved("Absolute")),
    ("SET a.Name = :s", reserved("Name")),
    ("SET a = Name", reserved("Name")),
    ("add abort :s", reserved("abort")),
    ("SET a[4294967295] = :s", NO_INDEX + "[4294967295]"),
    ("SET a = f(b,c,d)", "Invalid function name; function: f"),
    ("SET a = LIST_APPEND(b, c)", "Invalid function name; function: LIST_APPEND"),
    ("set #x = if_not_exist(:x) set c = d", "Invalid function name; function: if_not_exist"),
    ("SET a = size(b)", FOR_CONDITIONS + "size"),
    ("SET a = contains(b, :undefined)", FOR_CONDITIONS + "contains"),
    ("SET a = attribute_exists(b)", FOR_CONDITIONS + "attribute_exists"),
    ("SET a = if_not_exists(size(b), c)", FOR_CONDITIONS + "size"),
    ("SET a = list_append(list_append(:l, :l), :l)", misplaced("list_append")),
    ("SET a = if_not_exists(a, list_append(b, :l))", misplaced("list_append")),
    ("SET a = list_append(a, :l) + :n", misplaced("list_append")),
    ("SET a = :n - list_append(a, :l)", misplaced("list_append")),
    ("set a = #x set c = :x", repeated("SET")),
    ("remove #x set a = b remove e", repeated("REMOVE")),
    ("add #x :e set a = b add e :f", repeated("ADD")),
    ("delete #x :e set a = b delete #y :f", repeated("DELETE")),
    ("SET a = :s REMOVE a SET b = :s2", repeated("SET")),
    ("SET a = :n REMOVE Name SET b = :n", repeated("SET")),
    ("SET a = :n REMOVE Name SET Type = :n", reserved("Type")),
    ("SET " + ", ".join(f"a{i} = b + :n" for i in range(200)), None),
    ("SET " + ", ".join(f"a{i}=b+:n" for i in range(301)), "TOO MANY"),
    ("SET #x = if_not_exists(:x)", undefined_name("#x")),
    ("SET a = #x", undefined_name("#x")),
    ("SET #a = if_not_exists(:x)", undefined_value(":x")),
    ("SET a = :undefined", undefined_value(":undefined")),
    ("ADD a :undefined", undefined_value(":undefined")),
    ("DELETE a :undefined", undefined_value(":undefined")),
    ("SET a = if_not_exists(:undefined, :n)", undefined_value(":undefined")),
    ("SET a = :undefined, b = #x", undefined_name("#x")),
    ("SET a = :undefined, b = :undefined2", undefined_value(":undefined2")),
    (
        "SET a = b" + ".c" * 32,
        "The document path has too many nesting levels; nesting levels: 33",
    ),
    # paths
    ("SET a = :s, a = :s2", clash("overlap", "[a]", "[a]")),
    ("REMOVE a SET a = :s", clash("overlap", "[a]", "[a]")),
    ("SET a = :s REMOVE #a", clash("overlap", "[a]", "[a]")),
    ("SET a = :s, a.b = :s2", clash("overlap", "[a]", "[a, b]")),
    ("SET a.b.c.d = :s, a.b = :s2", clash("overlap", "[a, b, c, d]", "[a, b]")),
    ("SET a[1][1] = :s, a[1] = :s2", clash("overlap", "[a, [1], [1]]", "[a, [1]]")),
    ("SET a[0] = :s, a[0].ok = :s", clash("overlap", "[a, [0]]", "[a, [0], ok]")),
    ("SET b = :s, a.x = :s ADD a :n", clash("overlap", "[a, x]", "[a]")),
    ("SET a.b = :s, a[1] = :s2", clash("conflict", "[a, b]", "[a, [1]]")),
    ("SET a.b.c = :s, a.b[2] = :s2", clash("conflict", "[a, b, c]", "[a, b, [2]]")),
    ("remove a.#b set a[1] = #three", clash("conflict", "[a, b]", "[a, [1]]")),
    ("set #b[3].#three = a, #b[3] = a", clash("overlap", "[b, [3], [3]]", "[b, [3]]")),
    (
        "set #b[3].#three = a, #b.#three[3] = if_not_exists(a)",
        clash("conflict", "[b, [3], [3]]", "[b, [3], [3]]"),
    ),
    (
        "set d[1] = a, d.b = a, c[1].a = a, c = if_not_exists(a)",
        clash("overlap", "[c, [1], a]", "[c]"),
    ),
    # numbers and kinds of operands, from the last action back
    ("SET a = if_not_exists(b)", operand_count("if_not_exists", 1)),
    ("SET a = if_not_exists(b, c, d)", operand_count("if_not_exists", 3)),
    ("SET a = list_append(b)", operand_count("list_append", 1)),
    ("SET a = list_append(b, c, d)", operand_count("list_append", 3)),
    ("SET a = if_not_exists(:s, c)", needs_path("if_not_exists")),
    ("SET a = if_not_exists(if_not_exists(a, b), c)", needs_path("if_not_exists")),
    *[
        (f"SET a = {left} {operator} {right}", operand_type(operator, shown))
        for operator in "+-"
        for left, right, shown in [
            ("a", ":s", "S"),
            (":s", ":b", "S"),
            (":b", "a", "B"),
            ("a", ":t", "BOOL"),
            ("a", ":z", "NULL"),
            ("a", ":ss", "SS"),
            ("a", ":ns", "NS"),
            ("a", ":m", "M"),
            ("a", ":l", "L"),
        ]
    ],
    *[
        (f"SET a = list_append({operands})", operand_type("list_append", shown))
        for operands, shown in [
            (":s, a", "S"),
            ("a, :n", "N"),
            (":b, a", "B"),
            (":t, a", "BOOL"),
            (":ss, a", "SS"),
            (":m, a", "M"),
        ]
    ],
    *[
        (f"{section} a.b :{kind}", section_type(section, shown))
        for section in ("ADD", "DELETE")
        for kind, shown in [
            ("s", "STRING"),
            ("b", "BINARY"),
            ("t", "BOOLEAN"),
            ("z", "NULL"),
            ("m", "MAP"),
            ("l", "LIST"),
        ]
    ],
    ("DELETE a :n", section_type("DELETE", "NUMBER")),
    (
        "set b = list_append(:s, a), c = if_not_exists(a) add a.b :s",
        section_type("ADD", "STRING"),
    ),
]


@pytest.mark.parametrize(("expression", "expected"), UPDATES)
def test_updates(expression, expected):
    if expected is None:
        parse_update(expression, N).check_values(V)
        return
    assert error_of("update", expression) == (TOO_MANY if expected == "TOO MANY" else expected)


@pytest.mark.parametrize(
    "expression",
    [
        "sEt a = :s ReMoVe b aDd c :n DeLeTe d :ss",
        "ADD a :n SET b = :s",
        "SET a = (b)",
        "SET a = (b + c)",
        "SET a = (b) - (c)",
        "SET a = ((b) + (c))",
        "SET a = if_not_exists(a, if_not_exists(b, :n)) + :n",
        "SET a = list_append(if_not_exists(a, :l), :l)",
        "SET a = (list_append((a), (:l)))",
        "SET a = :n + if_not_exists(b, :n2)",
        "SET a[0] = :s, a[1].b = :s REMOVE a[2]",
        "SET a.b = a.c, a.d = a",
        "SET #dot = :s, a.b = :s2",
        "ADD a :n, b.c :ns, d[0] :bs DELETE e :ss",
        "SET a = a",
    ],
)
def test_updates_without_errors(expression):
    parse_update(expression, N).check_values(V)


# --- projections -------------------------------------------------------------------------------------------

PROJECTIONS = [
    ("a.abORt", reserved("abORt")),
    ("#x,ABSoLUTE", reserved("ABSoLUTE")),
    ("a[4294967295]", NO_INDEX + "[4294967295]"),
    ("a,b,a,#x", undefined_name("#x")),
    ("a" + ".b" * 32, "The document path has too many nesting levels; nesting levels: 33"),
    ("a, a", clash("overlap", "[a]", "[a]")),
    ("a, #a", clash("overlap", "[a]", "[a]")),
    ("a, a.b", clash("overlap", "[a]", "[a, b]")),
    ("a.b, a", clash("overlap", "[a, b]", "[a]")),
    ("b[1], b.a, #a.b, a", clash("overlap", "[a, b]", "[a]")),
    ("a, #a[1]", clash("overlap", "[a]", "[a, [1]]")),
    ("a.b, #a[1], #three", clash("conflict", "[a, b]", "[a, [1]]")),
    ("a.b[1], #a[1], #three", clash("conflict", "[a, b, [1]]", "[a, [1]]")),
    ("a[3].b, #a.#three.b", clash("conflict", "[a, [3], b]", "[a, [3], b]")),
]


@pytest.mark.parametrize(("expression", "expected"), PROJECTIONS)
def test_projections(expression, expected):
    assert error_of("projection", expression) == expected


def test_every_error_says_which_expression_is_wrong():
    with pytest.raises(ValidationError, match=r"^Invalid ConditionExpression: Syntax error"):
        parse_condition("a =", None)
    with pytest.raises(ValidationError, match=r"^Invalid FilterExpression: Syntax error"):
        parse_condition("a =", None, "FilterExpression")
