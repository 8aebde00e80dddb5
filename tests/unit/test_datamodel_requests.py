"""The committed, generated files are what their generator makes of the service model."""

import json
from typing import Any

import msgspec
import pytest

from datamodel import generate, requests
from datamodel.shape_rules import (
    ENUM_ORDER,
    IMPLEMENTED_OPERATIONS,
    MEMBER_ORDER,
    completed_shapes,
)


@pytest.fixture(scope="module")
def model() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(generate.MODEL_PATH.read_text(encoding="utf-8"))
    return loaded


def test_generating_again_gives_the_committed_requests(model):
    assert generate.requests_text(model) == generate.REQUESTS_PATH.read_text(encoding="utf-8")


def test_the_model_has_no_documentation_and_knows_the_installed_operations(model):
    botocore_session = pytest.importorskip("botocore.session")
    description = botocore_session.get_session().get_service_model("dynamodb")
    assert set(model["operations"]) >= set(IMPLEMENTED_OPERATIONS)
    assert set(model["operations"]) <= set(description.operation_names)
    assert "documentation" not in json.dumps(model)


def test_condensing_keeps_constraints_and_drops_the_rest():
    source = {
        "operations": {
            "Op": {"input": {"shape": "In"}, "errors": [{"shape": "E"}], "documentation": "x"}
        },
        "shapes": {
            "In": {
                "type": "structure",
                "required": ["A"],
                "members": {"A": {"shape": "S", "documentation": "x"}},
                "documentation": "x",
            },
            "S": {"type": "string", "min": 1, "documentation": "x"},
        },
    }
    assert generate.condense(source) == {
        "operations": {"Op": {"input": "In", "errors": ["E"]}},
        "shapes": {
            "In": {"type": "structure", "required": ["A"], "members": {"A": "S"}},
            "S": {"type": "string", "min": 1},
        },
    }
    assert json.loads(generate.model_text(source)) == generate.condense(source)


@pytest.mark.parametrize("operation", IMPLEMENTED_OPERATIONS)
def test_each_operation_has_a_type_with_the_members_of_the_model(model, operation):
    request_type = requests.REQUEST_TYPES[operation]
    shape = completed_shapes(model["shapes"])[model["operations"][operation]["input"]]
    fields = {field.name: field for field in msgspec.structs.fields(request_type)}
    assert set(fields) == set(shape.get("members", {}))
    required = {name for name, field in fields.items() if field.required}
    assert required == set(shape.get("required", ()))


def test_observed_orders_name_existing_values_and_members(model):
    for name, order in ENUM_ORDER.items():
        assert sorted(order) == sorted(model["shapes"][name]["enum"])
    for name, members in MEMBER_ORDER.items():
        assert set(members) <= set(model["shapes"][name]["members"])
