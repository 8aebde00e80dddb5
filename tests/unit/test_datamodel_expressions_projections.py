"""What projections keep of items."""

import pytest

from datamodel.expressions import Projection, parse_projection
from datamodel.expressions.syntax_tree import Path

ITEM = {
    "p": {"S": "key"},
    "a": {"N": "1"},
    "m": {
        "M": {
            "x": {"N": "1"},
            "y": {"M": {"z": {"S": "deep"}, "w": {"NULL": True}}},
            "e": {"M": {}},
        }
    },
    "l": {
        "L": [
            {"S": "l0"},
            {"M": {"x": {"S": "l1x"}, "y": {"S": "l1y"}}},
            {"L": [{"N": "7"}, {"N": "8"}]},
        ]
    },
    "a.b": {"S": "dotted"},
    "ss": {"SS": ["a"]},
}
NAMES = {"#d": "a.b", "#m": "m", "#x": "x"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("p", {"p": ITEM["p"]}),
        ("p, a", {"p": ITEM["p"], "a": ITEM["a"]}),
        ("m", {"m": ITEM["m"]}),
        ("nowhere", {}),
        ("nowhere, a", {"a": ITEM["a"]}),
        ("#d", {"a.b": ITEM["a.b"]}),
        ("a.b", {}),
        ("m.x", {"m": {"M": {"x": {"N": "1"}}}}),
        ("#m.#x", {"m": {"M": {"x": {"N": "1"}}}}),
        ("m.y.z", {"m": {"M": {"y": {"M": {"z": {"S": "deep"}}}}}}),
        ("m.x, m.y.z", {"m": {"M": {"x": {"N": "1"}, "y": {"M": {"z": {"S": "deep"}}}}}}),
        ("m.e", {"m": {"M": {"e": {"M": {}}}}}),
        ("m.e.x", {}),
        ("m.nowhere", {}),
        ("m.nowhere, m.x", {"m": {"M": {"x": {"N": "1"}}}}),
        ("m.x.y", {}),
        ("m[0]", {}),
        ("l[0]", {"l": {"L": [{"S": "l0"}]}}),
        ("l[2], l[0]", {"l": {"L": [{"S": "l0"}, ITEM["l"]["L"][2]]}}),
        ("l[9]", {}),
        ("l[9], l[0]", {"l": {"L": [{"S": "l0"}]}}),
        ("l.x", {}),
        ("l[1].x", {"l": {"L": [{"M": {"x": {"S": "l1x"}}}]}}),
        ("l[1].y, l[1].x", {"l": {"L": [{"M": {"x": {"S": "l1x"}, "y": {"S": "l1y"}}}]}}),
        ("l[0].x, l[1].x", {"l": {"L": [{"M": {"x": {"S": "l1x"}}}]}}),
        (
            "l[2][1], l[0], l[1].y",
            {"l": {"L": [{"S": "l0"}, {"M": {"y": {"S": "l1y"}}}, {"L": [{"N": "8"}]}]}},
        ),
        ("l[2][1], l[2][0]", {"l": {"L": [{"L": [{"N": "7"}, {"N": "8"}]}]}}),
        ("ss[0]", {}),
        (
            "p, m.x, l[0]",
            {"p": ITEM["p"], "m": {"M": {"x": {"N": "1"}}}, "l": {"L": [{"S": "l0"}]}},
        ),
    ],
)
def test_projections(expression, expected):
    assert parse_projection(expression, NAMES).apply(ITEM) == expected


def test_usage():
    projection = parse_projection("#m.x, l[0], #x, p", NAMES)
    assert projection.names_used == {"#m", "#x"}
    assert projection.top_level_attributes == ("m", "l", "x", "p")
    assert projection.nested_attributes == ("m", "l")
    assert parse_projection("#m.x, l[0], #x, p", NAMES) is projection


def test_projections_without_text():
    assert Projection([Path(("p",)), Path(("m", "x"))]).apply(ITEM) == {
        "p": ITEM["p"],
        "m": {"M": {"x": {"N": "1"}}},
    }
    assert Projection([]).apply(ITEM) == {}


def test_the_longest_projections():
    many = parse_projection(",".join(f"l[{index}]" for index in range(500)), None)
    elements = [{"N": str(index)} for index in range(1000)]
    assert many.apply({"l": {"L": elements}}) == {"l": {"L": elements[:500]}}
