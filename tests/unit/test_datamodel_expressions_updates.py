"""What updates make of items: tables, and a naive model."""

import copy
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.errors import ValidationError
from datamodel.expressions import Update, parse_update
from datamodel.expressions.syntax_tree import Action, Arithmetic, Function, Literal, Path

MISSING = "The provided expression refers to an attribute that does not exist in the item"
INVALID_PATH = "The document path provided in the update expression is invalid for update"
WRONG_TYPE = "An operand in the update expression has an incorrect data type"
TOO_DEEP = (
    "Nesting Levels have exceeded supported limits: "
    "Attributes in the item have nested levels beyond supported limit"
)
OVERFLOW = (
    "Number overflow. Attempting to store a number with magnitude larger than supported range"
)


def n(*texts):
    return {"L": [{"N": text} for text in texts]}


def m(**members):
    return {"M": members}


ONE, TWO, THREE, FIVE = ({"N": text} for text in ("1", "2", "3", "5"))
V = {
    ":1": ONE,
    ":2": TWO,
    ":3": THREE,
    ":m1": {"N": "-1"},
    ":s": {"S": "x"},
    ":l": n("8", "9"),
    ":el": {"L": []},
    ":m": m(k=ONE),
    ":ss": {"SS": ["a", "b"]},
    ":ss2": {"SS": ["b", "c"]},
    ":ns": {"NS": ["1", "2"]},
    ":bs": {"BS": ["YQ=="]},
    ":big": {"N": "9" * 38 + "0" * 88},
}
ITEM = {
    "p": {"S": "key"},
    "a": ONE,
    "b": TWO,
    "s": {"S": "text"},
    "l": n("0", "1", "2", "3", "4", "5"),
    "m": m(x=ONE, y=n("7", "8", "9"), deep=m(z=m(w=FIVE))),
    "mixed": {"L": [m(q=ONE), n("1", "2", "3"), {"S": "t"}]},
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["1", "2", "3"]},
    "bs": {"BS": ["YQ==", "Yg=="]},
    "el": {"L": []},
    "em": {"M": {}},
}
GONE = object()

# expression -> what differs from ITEM afterwards
RESULTS = [
    # SET
    ("SET c = :1", {"c": ONE}),
    ("SET a = :s", {"a": {"S": "x"}}),
    ("SET c = :1, d = :2, e = :m", {"c": ONE, "d": TWO, "e": m(k=ONE)}),
    ("SET c = a", {"c": ONE}),
    ("SET a = a", {}),
    ("SET c = m.deep.z.w", {"c": FIVE}),
    ("SET c = m.y[1]", {"c": {"N": "8"}}),
    ("SET c = mixed[1][2]", {"c": THREE}),
    ("SET a = b, b = a", {"a": TWO, "b": ONE}),
    ("SET a = a + :1, c = a", {"a": TWO, "c": ONE}),
    ("REMOVE a SET c = a", {"a": GONE, "c": ONE}),
    ("SET c = a REMOVE a", {"a": GONE, "c": ONE}),
    ("SET #dot = :1", {"a.b": ONE}),
    ("SET c = p", {"c": {"S": "key"}}),
    # arithmetic
    ("SET a = a + :2", {"a": THREE}),
    ("SET a = :2 + a", {"a": THREE}),
    ("SET a = a - :2", {"a": {"N": "-1"}}),
    ("SET a = :2 - a", {"a": ONE}),
    ("SET c = :1 + :2", {"c": THREE}),
    ("SET c = a + b", {"c": THREE}),
    ("SET c = (a + b)", {"c": THREE}),
    ("SET c = m.x + m.y[0]", {"c": {"N": "8"}}),
    ("SET m.x = m.x + :1", {"m": m(x=TWO, y=ITEM["m"]["M"]["y"], deep=ITEM["m"]["M"]["deep"])}),
    ("SET a = if_not_exists(a, :3) + :1", {"a": TWO}),
    ("SET c = if_not_exists(c, :3) + :2", {"c": FIVE}),
    ("SET c = :3 - if_not_exists(c, :1)", {"c": TWO}),
    # if_not_exists
    ("SET a = if_not_exists(a, :2)", {}),
    ("SET c = if_not_exists(c, :2)", {"c": TWO}),
    ("SET c = if_not_exists(a, :2)", {"c": ONE}),
    ("SET c = if_not_exists(c, a)", {"c": ONE}),
    ("SET c = if_not_exists(c, if_not_exists(d, :3))", {"c": THREE}),
    ("SET c = if_not_exists(c, if_not_exists(b, :3))", {"c": TWO}),
    ("SET c = if_not_exists(a, nowhere)", {"c": ONE}),
    ("SET c = if_not_exists(a.x, :2)", {"c": TWO}),
    ("SET c = if_not_exists(l[9], :2)", {"c": TWO}),
    # list_append
    ("SET c = list_append(:l, :l)", {"c": n("8", "9", "8", "9")}),
    ("SET el = list_append(el, :l)", {"el": n("8", "9")}),
    ("SET c = list_append(:l, m.y)", {"c": n("8", "9", "7", "8", "9")}),
    ("SET c = list_append(m.y, el)", {"c": n("7", "8", "9")}),
    ("SET c = list_append(if_not_exists(c, :el), :l)", {"c": n("8", "9")}),
    ("SET c = list_append(:l, if_not_exists(el, :l))", {"c": n("8", "9")}),
    # nested
    ("SET em.k = :1", {"em": m(k=ONE)}),
    ("SET m.x = :s", {"m": {"M": {**ITEM["m"]["M"], "x": {"S": "x"}}}}),
    (
        "SET m.deep.z.w = :1, m.deep.z.v = :2",
        {"m": {"M": {**ITEM["m"]["M"], "deep": m(z=m(w=ONE, v=TWO))}}},
    ),
    ("SET mixed[0].q = :2", {"mixed": {"L": [m(q=TWO), *ITEM["mixed"]["L"][1:]]}}),
    ("SET mixed[0].r = :2", {"mixed": {"L": [m(q=ONE, r=TWO), *ITEM["mixed"]["L"][1:]]}}),
    ("SET mixed[1][0] = :2", {"mixed": {"L": [m(q=ONE), n("2", "2", "3"), {"S": "t"}]}}),
    ("SET em.#dot = :1", {"em": {"M": {"a.b": ONE}}}),
    # lists
    ("SET l[0] = :s", {"l": {"L": [{"S": "x"}, *n("1", "2", "3", "4", "5")["L"]]}}),
    ("SET l[6] = :3", {"l": n("0", "1", "2", "3", "4", "5", "3")}),
    ("SET l[600] = :3", {"l": n("0", "1", "2", "3", "4", "5", "3")}),
    ("SET el[0] = :3", {"el": n("3")}),
    ("SET el[84] = :1, el[37] = :2, el[17] = :3, el[50] = a", {"el": n("3", "2", "1", "1")}),
    ("SET l[9] = :1, l[1] = :2", {"l": n("0", "2", "2", "3", "4", "5", "1")}),
    ("REMOVE l[1]", {"l": n("0", "2", "3", "4", "5")}),
    ("REMOVE l[5]", {"l": n("0", "1", "2", "3", "4")}),
    ("REMOVE l[1], l[3], l[0]", {"l": n("2", "4", "5")}),
    ("REMOVE l[17]", {}),
    ("REMOVE l[1] SET l[3] = :1", {"l": n("0", "2", "1", "4", "5")}),
    ("SET l[3] = :1 REMOVE l[1]", {"l": n("0", "2", "1", "4", "5")}),
    ("REMOVE l[5] SET l[6] = :1", {"l": n("0", "1", "2", "3", "4", "1")}),
    ("REMOVE mixed[1][1], mixed[0].q", {"mixed": {"L": [{"M": {}}, n("1", "3"), {"S": "t"}]}}),
    ("REMOVE mixed[2] SET mixed[1][0] = :3", {"mixed": {"L": [m(q=ONE), n("3", "2", "3")]}}),
    ("SET l[0] = l[5], l[5] = l[0]", {"l": n("5", "1", "2", "3", "4", "0")}),
    # REMOVE
    ("REMOVE a", {"a": GONE}),
    ("REMOVE a, b, l", {"a": GONE, "b": GONE, "l": GONE}),
    ("REMOVE nowhere", {}),
    ("REMOVE m.x", {"m": {"M": {key: ITEM["m"]["M"][key] for key in ("y", "deep")}}}),
    ("REMOVE m.nowhere", {}),
    ("REMOVE m.deep.z.w", {"m": {"M": {**ITEM["m"]["M"], "deep": m(z={"M": {}})}}}),
    ("REMOVE m.deep", {"m": {"M": {key: ITEM["m"]["M"][key] for key in ("x", "y")}}}),
    # ADD
    ("ADD a :2", {"a": THREE}),
    ("ADD a :m1", {"a": {"N": "0"}}),
    ("ADD c :2", {"c": TWO}),
    ("ADD ss :ss2", {"ss": {"SS": ["a", "b", "c"]}}),
    ("ADD ss :ss", {}),
    ("ADD c :ss", {"c": {"SS": ["a", "b"]}}),
    ("ADD ns :ns", {}),
    ("ADD bs :bs", {}),
    ("ADD m.x :2", {"m": {"M": {**ITEM["m"]["M"], "x": THREE}}}),
    ("ADD em.c :ns", {"em": m(c={"NS": ["1", "2"]})}),
    ("ADD l[0] :2, l[9] :3", {"l": n("2", "1", "2", "3", "4", "5", "3")}),
    # DELETE
    ("DELETE ss :ss2", {"ss": {"SS": ["a"]}}),
    ("DELETE ss :ss", {"ss": GONE}),
    ("DELETE ns :ns", {"ns": {"NS": ["3"]}}),
    ("DELETE bs :bs", {"bs": {"BS": ["Yg=="]}}),
    ("DELETE nowhere :ss", {}),
    ("DELETE em.c :ss", {}),
    # all at once
    (
        "REMOVE b ADD a :1, ss :ss2 DELETE ns :ns SET c = b, m.x = a, l[0] = l[1]",
        {
            "b": GONE,
            "a": TWO,
            "ss": {"SS": ["a", "b", "c"]},
            "ns": {"NS": ["3"]},
            "c": TWO,
            "l": n("1", "1", "2", "3", "4", "5"),
        },
    ),
]
NAMES = {"#dot": "a.b"}


def apply(expression, item, values=None, **options):
    update = parse_update(expression, NAMES)
    values = V if values is None else values
    update.check_values(values)
    before = copy.deepcopy((item, values))
    try:
        return update.apply(item, values, ("p",), **options)
    finally:
        assert (item, values) == before, "the item or the values were changed"


@pytest.mark.parametrize(("expression", "differences"), RESULTS)
def test_results(expression, differences):
    expected = {**ITEM, **differences}
    expected = {name: value for name, value in expected.items() if value is not GONE}
    assert apply(expression, ITEM).item == expected


def test_untouched_parts_are_shared_and_touched_ones_copied():
    result = apply("SET m.deep.z.w = :1", ITEM)
    assert result.item["l"] is ITEM["l"]
    assert result.item["m"]["M"]["y"] is ITEM["m"]["M"]["y"]
    assert result.item["m"]["M"]["deep"] is not ITEM["m"]["M"]["deep"]


ERRORS = [
    ("SET c = nowhere", MISSING),
    ("SET z = z", MISSING),
    ("SET x = :1, y = x", MISSING),
    ("SET c = m.nowhere", MISSING),
    ("SET c = l[6]", MISSING),
    ("SET c = a.x", MISSING),
    ("SET c = nowhere + :1", MISSING),
    ("SET c = :1 - nowhere", MISSING),
    ("SET c = list_append(nowhere, :l)", MISSING),
    ("SET c = list_append(:l, nowhere)", MISSING),
    ("SET c = if_not_exists(nowhere, gone)", MISSING),
    ("SET a = a + s", WRONG_TYPE),
    ("SET a = s + a", WRONG_TYPE),
    ("SET a = l - :1", WRONG_TYPE),
    ("SET c = list_append(a, :l)", WRONG_TYPE),
    ("SET c = list_append(:l, ss)", WRONG_TYPE),
    ("SET c = if_not_exists(s, :1) + :1", WRONG_TYPE),
    ("ADD s :1", WRONG_TYPE),
    ("ADD a :ss", WRONG_TYPE),
    ("ADD ss :1", WRONG_TYPE),
    ("ADD ss :ns", WRONG_TYPE),
    ("ADD l :ss", WRONG_TYPE),
    ("DELETE ns :ss", WRONG_TYPE),
    ("DELETE a :ss", WRONG_TYPE),
    ("DELETE l :ss", WRONG_TYPE),
    ("SET a.c = :1", INVALID_PATH),
    ("SET l.c = :1", INVALID_PATH),
    ("SET nowhere.c = :1", INVALID_PATH),
    ("SET m.nowhere.c = :1", INVALID_PATH),
    ("SET a[0] = :1", INVALID_PATH),
    ("SET m[0] = :1", INVALID_PATH),
    ("SET nowhere[0] = :1", INVALID_PATH),
    ("SET l[9].x = :1", INVALID_PATH),
    ("SET l[9][0] = :1", INVALID_PATH),
    ("SET ss[0] = :1", INVALID_PATH),
    ("REMOVE a.c", INVALID_PATH),
    ("REMOVE l.c", INVALID_PATH),
    ("REMOVE nowhere.c", INVALID_PATH),
    ("REMOVE a[0]", INVALID_PATH),
    ("REMOVE nowhere[0]", INVALID_PATH),
    ("REMOVE m.nowhere.c", INVALID_PATH),
    ("ADD nowhere.c :1", INVALID_PATH),
    ("DELETE nowhere.c :ss", INVALID_PATH),
    ("SET c = :big + :big", OVERFLOW),
    ("SET c = :big + :1", OVERFLOW),
    *[
        (expression, "KEY")
        for expression in (
            "SET p = :s",
            "REMOVE p",
            "ADD p :1",
            "DELETE p :ss",
            "SET p.x = :1",
            "SET a = nowhere REMOVE p[0]",
        )
    ],
]


@pytest.mark.parametrize(("expression", "message"), ERRORS)
def test_errors(expression, message):
    if message == "KEY":
        message = (
            "One or more parameter values were invalid: Cannot update attribute p. "
            "This attribute is part of the key"
        )
    with pytest.raises(ValidationError) as caught:
        apply(expression, ITEM)
    assert caught.value.message == message


@pytest.mark.parametrize("expression", ["REMOVE x.y", "REMOVE x[0]", "REMOVE x.y.z, c, d[0][1]"])
def test_removing_from_an_item_that_does_not_exist(expression):
    assert apply(expression, {"p": {"S": "k"}}, item_exists=False).item == {"p": {"S": "k"}}
    with pytest.raises(ValidationError, match=INVALID_PATH):
        apply(expression, {"p": {"S": "k"}})


@pytest.mark.parametrize("expression", ["SET x.y = :1", "SET x[0] = :1", "REMOVE x.y SET x.z = :1"])
def test_setting_inside_an_item_that_does_not_exist(expression):
    with pytest.raises(ValidationError, match=INVALID_PATH):
        apply(expression, {"p": {"S": "k"}}, item_exists=False)


def test_an_update_can_make_an_item():
    result = apply(
        "SET a = :1, l = :l ADD c :2, s :ss REMOVE x DELETE y :ss", {}, item_exists=False
    )
    assert result.item == {"a": ONE, "l": n("8", "9"), "c": TWO, "s": {"SS": ["a", "b"]}}


def nested(depth):
    value = ONE
    for _ in range(depth - 1):
        value = m(k=value)
    return value


@pytest.mark.parametrize(
    ("expression", "depth", "is_fine"),
    [("SET c = :v", 32, True), ("SET em.c = :v", 31, True), ("SET em.c = :v", 32, False)],
)
def test_values_must_not_nest_too_deep_where_they_are_put(expression, depth, is_fine):
    values = {":v": nested(depth)}
    if is_fine:
        apply(expression, ITEM, values)
    else:
        with pytest.raises(ValidationError, match="Nesting Levels") as caught:
            apply(expression, ITEM, values)
        assert caught.value.message == TOO_DEEP


# --- UPDATED_OLD and UPDATED_NEW ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "old", "new"),
    [
        ("SET a = :2, c = :3", {"a": ONE}, {"a": TWO, "c": THREE}),
        ("SET a = a", {"a": ONE}, {"a": ONE}),
        ("REMOVE a", {"a": ONE}, {}),
        ("REMOVE nowhere", {}, {}),
        ("SET c = :1", {}, {"c": ONE}),
        ("SET m.x = :2", {"m": m(x=ONE)}, {"m": m(x=TWO)}),
        ("SET m.y[1] = :1", {"m": m(y=n("8"))}, {"m": m(y=n("1"))}),
        (
            "SET m.y[1] = :1, m.x = :2",
            {"m": m(x=ONE, y=n("8"))},
            {"m": m(x=TWO, y=n("1"))},
        ),
        ("REMOVE m.y[1], m.y[3]", {"m": m(y=n("8"))}, {"m": m(y=n("9"))}),
        ("SET m.v = :1", {}, {"m": m(v=ONE)}),
        # As observed: what is appended beyond the end is not found at its index, what moves up is.
        ("SET m.y[100] = :1", {}, {}),
        ("SET m.y[3] = :1", {}, {"m": m(y=n("1"))}),
        ("REMOVE m.y[0]", {"m": m(y=n("7"))}, {"m": m(y=n("8"))}),
        ("DELETE ss :ss", {"ss": ITEM["ss"]}, {}),
        ("ADD a :1", {"a": ONE}, {"a": TWO}),
        ("SET l[0] = :3, l[5] = :3", {"l": n("0", "5")}, {"l": n("3", "3")}),
    ],
)
def test_updated_parts(expression, old, new):
    result = apply(expression, ITEM)
    assert result.updated_old(ITEM) == old
    assert result.updated_new() == new
    assert result.updated_old(None) == {}


def test_usage():
    update = parse_update("SET #x.y = b + :1, c = d[0] REMOVE e", {"#x": "X"})
    assert update.names_used == {"#x"}
    assert update.values_used == {":1"}
    assert update.changed_attributes == ("X", "c", "e")
    assert set(update.top_level_attributes) == {"X", "b", "c", "d", "e"}
    assert set(update.nested_attributes) == {"X", "d"}
    assert update.touched == (Path(("X", "y")), Path(("c",)), Path(("e",)))
    assert parse_update("SET #x.y = b + :1, c = d[0] REMOVE e", {"#x": "X"}) is update


def test_updates_without_text():
    a, c = Path(("a",)), Path(("c",))
    update = Update(
        [
            Action("SET", a, Arithmetic("+", a, Literal(ONE))),
            Action("ADD", c, Literal({"SS": ["x"]})),
            Action("REMOVE", Path(("b",))),
            Action("SET", Path(("d",)), Function("if_not_exists", (Path(("q",)), Literal(TWO)))),
        ]
    )
    assert update.apply({"a": ONE, "b": ONE}, {}).item == {
        "a": TWO,
        "c": {"SS": ["x"]},
        "d": TWO,
    }


def test_the_widest_updates():
    many = ", ".join(f"a{index}.b[{index}]" for index in range(300))
    item = {f"a{index}": m(b=n("1")) for index in range(300)}
    assert apply(f"REMOVE {many}", item).item["a0"] == m(b={"L": []})
    deep = {"N": "1"}
    for _ in range(31):
        deep = m(b=deep)
    updated = apply("SET a" + ".b" * 31 + " = :2", {"a": deep}).item["a"]
    for _ in range(31):
        updated = updated["M"]["b"]
    assert updated == TWO


@pytest.mark.parametrize(
    "right",
    [
        ":v",
        "big",
        "list_append(:v, :v)",
        "list_append(big, :v)",
        "if_not_exists(nowhere, :v)",
        ":s",
    ],
)
def test_naming_a_large_value_many_times_is_refused_soon(right):
    big = {"L": [{"S": ""}] * 300_000}
    values = {":v": big, ":s": {"S": "x" * 300_000}}
    text = ", ".join(f"a{index} = {right}" for index in range(120))
    started = time.perf_counter()
    with pytest.raises(ValidationError) as caught:
        parse_update(f"SET {text}", None).apply({"big": big}, values)
    assert caught.value.message == "Item size to update has exceeded the maximum allowed size"
    assert time.perf_counter() - started < 5


def test_lists_are_added_by_legacy_parameters_only():
    update = Update([Action("ADD", Path(("l",)), Literal(n("9")))])
    assert update.apply({"l": n("1")}, {}).item == {"l": n("1", "9")}
    assert update.apply({}, {}).item == {"l": n("9")}
    for section in ("ADD", "DELETE"):
        update = Update([Action(section, Path(("a",)), Literal({"BOOL": True}))])
        with pytest.raises(ValidationError, match=WRONG_TYPE):
            update.apply({"a": {"BOOL": True}}, {})


# --- a naive model -----------------------------------------------------------------------------------------
# Plain Python: numbers are int, maps dict, lists list. Paths never overlap or conflict.

leaves = st.integers(-5, 5)
documents = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
    ),
    max_leaves=8,
)
items = st.dictionaries(st.sampled_from("abc"), documents, max_size=3)
paths = st.tuples(
    st.sampled_from("abc"), st.lists(st.sampled_from("xyz") | st.integers(0, 4), max_size=2)
).map(lambda pair: (pair[0], *pair[1]))
right_sides = st.one_of(
    st.tuples(st.just("value"), leaves),
    st.tuples(st.just("path"), paths),
    st.tuples(st.just("plus"), paths, leaves),
    st.tuples(st.just("default"), paths, leaves),
)
actions = st.one_of(
    st.tuples(st.just("SET"), paths, right_sides),
    st.tuples(st.just("REMOVE"), paths),
    st.tuples(st.just("ADD"), paths, leaves),
)


def to_value(document):
    if isinstance(document, dict):
        return {"M": {name: to_value(member) for name, member in document.items()}}
    if isinstance(document, list):
        return {"L": [to_value(member) for member in document]}
    return {"N": str(document)}


def clashes(one, two):
    for x, y in zip(one, two, strict=False):
        if type(x) is not type(y):
            return True
        if x != y:
            return False
    return True


class Refused(Exception):
    pass


def look(item, path):
    for step in path:
        if isinstance(item, dict) and isinstance(step, str):
            if step not in item:
                return None
        elif isinstance(item, list) and isinstance(step, int):
            if step >= len(item):
                return None
        else:
            return None
        item = item[step]
    return item


def model(item, steps):
    """Applies steps one after another to a deep copy, removals from the back of lists last."""
    results = []
    for step in steps:
        kind, path = step[:2]
        if kind == "REMOVE":
            results.append((path, None))
            continue
        if kind == "ADD":
            old = look(item, path)
            if old is not None and not isinstance(old, int):
                raise Refused
            results.append((path, (old or 0) + step[2]))
            continue
        how, *rest = step[2]
        if how == "value":
            new = rest[0]
        else:
            new = look(item, rest[0])
            if how == "default" and new is None:
                new = rest[1]
            elif new is None:
                raise Refused
            elif how == "plus":
                if not isinstance(new, int):
                    raise Refused
                new += rest[1]
        results.append((path, new))
    done = copy.deepcopy(item)
    appended, removed = [], []
    for path, new in results:
        parent = look(done, path[:-1]) if len(path) > 1 else done
        last = path[-1]
        if not isinstance(parent, dict if isinstance(last, str) else list):
            raise Refused
        if isinstance(last, str):
            if new is None:
                parent.pop(last, None)
            else:
                parent[last] = copy.deepcopy(new)
        elif new is None:
            if last < len(look(item, path[:-1])):
                removed.append((parent, last))
        elif last < len(look(item, path[:-1])):
            parent[last] = copy.deepcopy(new)
        else:
            appended.append((last, parent, copy.deepcopy(new)))
    for _, parent, new in sorted(appended, key=lambda entry: entry[0]):
        parent.append(new)
    for parent, last in sorted(removed, key=lambda entry: -entry[1]):
        del parent[last]
    return done


def written(path):
    text = path[0]
    for step in path[1:]:
        text += f".{step}" if isinstance(step, str) else f"[{step}]"
    return text


def as_text(steps):
    values = {}

    def placeholder(number):
        name = f":v{len(values)}"
        values[name] = {"N": str(number)}
        return name

    sections = {}
    for step in steps:
        kind, path = step[:2]
        text = written(path)
        if kind == "ADD":
            text += " " + placeholder(step[2])
        elif kind == "SET":
            how, *rest = step[2]
            if how == "value":
                right = placeholder(rest[0])
            elif how == "path":
                right = written(rest[0])
            elif how == "plus":
                right = f"{written(rest[0])} + {placeholder(rest[1])}"
            else:
                right = f"if_not_exists({written(rest[0])}, {placeholder(rest[1])})"
            text += f" = {right}"
        sections.setdefault(kind, []).append(text)
    return " ".join(f"{kind} {', '.join(texts)}" for kind, texts in sections.items()), values


@settings(max_examples=400, deadline=None)
@given(items, st.lists(actions, min_size=1, max_size=5))
def test_updates_match_a_naive_model(item, proposed):
    steps = []
    for step in proposed:
        if not any(clashes(step[1], other[1]) for other in steps):
            steps.append(step)
    expression, values = as_text(steps)
    stored = {name: to_value(document) for name, document in item.items()}
    before = copy.deepcopy(stored)
    update = parse_update(expression, None)
    update.check_values(values)
    try:
        expected = model(item, steps)
    except Refused:
        with pytest.raises(ValidationError):
            update.apply(stored, values)
    else:
        result = update.apply(stored, values).item
        assert result == {name: to_value(document) for name, document in expected.items()}
    assert stored == before


@pytest.mark.parametrize(
    ("old", "section", "value", "new"),
    [
        ({"SS": ["b", "d"]}, "ADD", {"SS": ["a", "c"]}, {"SS": ["a", "b", "c", "d"]}),
        ({"NS": ["9", "10"]}, "ADD", {"NS": ["-1", "9.5"]}, {"NS": ["-1", "9", "9.5", "10"]}),
        ({"BS": ["AA==", "/w=="]}, "ADD", {"BS": ["fw=="]}, {"BS": ["AA==", "fw==", "/w=="]}),
        ({"NS": ["9", "10", "11"]}, "DELETE", {"NS": ["10"]}, {"NS": ["9", "11"]}),
    ],
)
def test_sets_stay_in_order(old, section, value, new):
    update = parse_update(f"{section} a :v", None)
    update.check_values({":v": value})
    assert update.apply({"a": old}, {":v": value}).item == {"a": new}


@pytest.mark.parametrize("section", ["ADD", "DELETE"])
def test_a_set_that_was_stored_without_order_is_in_order_once_it_changed(section):
    stored = {"ss": {"SS": ["d", "b", "a"]}}
    changed = apply(f"{section} ss :ss2", stored).item["ss"]["SS"]
    assert changed == {"ADD": ["a", "b", "c", "d"], "DELETE": ["a", "d"]}[section]
