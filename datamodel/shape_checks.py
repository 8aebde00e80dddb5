"""The service's checks of a request against its model: JSON types first, then member constraints.

Both walk a decoded JSON value along the shapes of `service_model.json`. The type walk goes in the order of the
document and stops at the first mismatch; the constraint walk collects up to ten failures in the service's
order. Texts are the service's, Java class names included: clients and their tests match on them.

Source of the texts: dynalite's and dynamodb-conformance's recordings of the service.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from datamodel.attribute_values import read_boolean
from datamodel.errors import SerializationError, ValidationError
from datamodel.shape_rules import (
    ENUM_ORDER,
    FAILURES_MAX,
    MEMBER_CONSTRAINTS,
    MEMBER_ORDER,
    NEWER_ENUMS,
    NEWER_MEMBER_ORDER,
    REQUIRED_UNLESS,
    TABLE_NAME_LENGTH_MAX,
    TABLE_NAME_LENGTH_MIN,
    TABLE_NAME_PATTERN,
)
from datamodel.wording import OLDER, Wording

ShapeDefinition = Mapping[str, Any]
Shapes = Mapping[str, ShapeDefinition]

_CLASS_PREFIX: Final = "com.amazonaws.dynamodb.v20120810."
_MAP_NOT_EXPECTED: Final = "Start of structure or map found where not expected"
_PARAMETERIZED: Final = (
    "class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast to class "
    "java.lang.Class (sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl and java.lang.Class "
    "are in module java.base of loader 'bootstrap')"
)
_JAVA_CLASS: Final = {
    "blob": "java.nio.ByteBuffer",
    "boolean": "java.lang.Boolean",
    "double": "java.lang.Double",
    "integer": "java.lang.Integer",
    "long": "java.lang.Long",
    "string": "java.lang.String",
    "timestamp": "java.util.Date",
}
_INTEGER_RANGE: Final = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
# Deeper attribute values are left as they are: no valid one nests that deep, and whoever checks values says so.
_ATTRIBUTE_VALUE_DEPTH_MAX: Final = 64
_ECHO_LENGTH_MAX: Final = 100_000
"""Characters of a value in a message, about; 16 MB of a request can be 100 MB in Java's words."""
_LEAST: Final = ("Member must have length greater", "Member must have value greater")
_BOUNDS: Final = ("Member must have length", "Member must have value")
_ELEMENTS_CHECKED_MAX: Final = 1000
"""Elements that are looked at in a list or map that is too long anyway."""


def is_arn(name: str) -> bool:
    """Whether a table is named by its ARN rather than by its name."""
    return name.startswith("arn:")


def table_name_is_plain(name: str) -> bool:
    """Whether a name satisfies the pattern and the upper length of table names (ARNs do not)."""
    return len(name) <= TABLE_NAME_LENGTH_MAX and _pattern(TABLE_NAME_PATTERN)(name) is not None


def check_table_name(name: str) -> None:
    """Names too short for a table: no constraint of the model, but found before anything else is looked at.

    Raises:
        ValidationError: One or two characters.
    """
    if len(name) < TABLE_NAME_LENGTH_MIN:
        rule = f"Member must have length greater than or equal to {TABLE_NAME_LENGTH_MIN}"
        raise ValidationError(failures_message([_failure(name, "tableName", rule)]))


# --- JSON types --------------------------------------------------------------------------------------------


def convert_types(shapes: Shapes, name: str, value: Any) -> Any:
    """The value with the types of its shape: unknown and null members dropped, numbers cut to integers.

    Raises:
        SerializationError: The first mismatch in the order of the document, in the service's words.
    """
    return _Types(shapes).convert(name, value, is_element=False, depth=0)


class _Types:
    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes

    def convert(self, name: str, value: Any, *, is_element: bool, depth: int) -> Any:
        shape = self._shapes[name]
        kind = shape["type"]
        if kind in _JAVA_CLASS:
            return _convert_scalar(kind, value)
        if depth > _ATTRIBUTE_VALUE_DEPTH_MAX:
            return value
        if name == "AttributeValue" and _is_plain_value(value):
            return value
        match kind:
            case "structure":
                self._expect_map(value, _CLASS_PREFIX + name, is_element=is_element)
                members = shape.get("members", {})
                return {
                    member: self.convert(members[member], inner, is_element=False, depth=depth + 1)
                    for member, inner in value.items()
                    if inner is not None and member in members
                }
            case "map":
                if not isinstance(value, dict):
                    if is_element and not isinstance(value, list):
                        raise SerializationError(_PARAMETERIZED)
                    self._expect_map(value, self._java_class(name), is_element=False)
                return {
                    key: self._element(shape["value"], inner, depth) for key, inner in value.items()
                }
            case _:
                if isinstance(value, dict):
                    raise SerializationError(_MAP_NOT_EXPECTED)
                if not isinstance(value, list):
                    raise SerializationError(
                        _PARAMETERIZED if is_element else "Unexpected field type"
                    )
                return [self._element(shape["member"], inner, depth) for inner in value]

    def _element(self, name: str, value: Any, depth: int) -> Any:
        if value is None:
            return None
        return self.convert(name, value, is_element=True, depth=depth + 1)

    def _expect_map(self, value: Any, java_class: str, *, is_element: bool) -> None:
        if isinstance(value, dict):
            return
        if isinstance(value, list):
            kind = "" if java_class.startswith("java.util.Map<") else "class "
            raise SerializationError(f"Unrecognized collection type {kind}{java_class}")
        raise SerializationError(
            "Unexpected value type in payload" if is_element else "Unexpected field type"
        )

    def _java_class(self, name: str) -> str:
        shape = self._shapes[name]
        match shape["type"]:
            case "structure":
                return _CLASS_PREFIX + name
            case "map":
                return f"java.util.Map<java.lang.String, {self._java_class(shape['value'])}>"
            case "list":
                return f"java.util.List<{self._java_class(shape['member'])}>"
            case kind:
                return _JAVA_CLASS[kind]


def _is_plain_value(value: Any) -> bool:
    """Whether this is one of the attribute values that nearly all are: they need no conversion."""
    if type(value) is not dict or len(value) != 1:
        return False
    ((kind, content),) = value.items()
    if kind in ("S", "N"):
        return type(content) is str
    return kind in ("BOOL", "NULL") and type(content) is bool


def _convert_scalar(kind: str, value: Any) -> Any:
    if isinstance(value, dict):
        raise SerializationError(_MAP_NOT_EXPECTED)
    if isinstance(value, list):
        raise SerializationError(f"Unrecognized collection type class {_JAVA_CLASS[kind]}")
    match kind:
        case "string":
            if isinstance(value, str):
                return value
        case "boolean":
            return read_boolean(value)
        case "blob":
            return _convert_blob(value)
        case "integer" | "long":
            if isinstance(value, int | float) and not isinstance(value, bool):
                lowest, highest = _INTEGER_RANGE[kind]
                return max(lowest, min(highest, int(value)))
        case _:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
    java_class = _JAVA_CLASS[kind].rpartition(".")[2]
    raise SerializationError(f"{_token(value)} cannot be converted to {java_class}")


def _token(value: Any) -> str:
    if value is True:
        return "TRUE_VALUE"
    if value is False:
        return "FALSE_VALUE"
    if isinstance(value, str):
        return "STRING_VALUE"
    return "DECIMAL_VALUE" if isinstance(value, float) else "NUMBER_VALUE"


def _convert_blob(value: Any) -> str:
    if not isinstance(value, str):
        raise SerializationError("only base-64-encoded strings are convertible to bytes")
    if len(value) % 4:
        raise SerializationError(
            "Base64 encoded length is expected a multiple of 4 bytes but found: " + str(len(value))
        )
    wrong = re.search(r"[^a-zA-Z0-9+/=]", value)
    if wrong is not None:
        raise SerializationError(f"Invalid Base64 character: '{wrong[0]}'")
    try:
        canonical = base64.b64encode(base64.b64decode(value, validate=True)).decode() == value
    except binascii.Error:
        canonical = False
    if not canonical:
        # The misspelling is the service's.
        raise SerializationError("Invalid last non-pad Base64 character dectected")
    return value


# --- constraints -------------------------------------------------------------------------------------------


def constraint_failures(
    shapes: Shapes,
    name: str,
    value: Mapping[str, Any],
    *,
    names_a_new_table: bool = False,
    wording: Wording = OLDER,
) -> list[str]:
    """The first ten constraints that a request breaks, each as the service words it.

    Args:
        shapes: The model's shapes, as the service enforces them (`shape_rules.enforced_shapes`).
        name: The request's shape.
        value: The request after `convert_types`.
        names_a_new_table: Table names must then have their full minimum length.
        wording: The operation's.
    """
    checks = _Constraints(shapes, names_a_new_table=names_a_new_table, is_newer=wording.members)
    return list(islice(checks.structure(name, value, _Place("", "")), FAILURES_MAX))


def _table_name_rules(value: str, length_min: int) -> ShapeDefinition:
    """A table is named by its ARN or by its name; the pattern is not tried on an empty one."""
    if is_arn(value):
        return {}
    rules: dict[str, Any] = {"min": length_min, "max": TABLE_NAME_LENGTH_MAX}
    if value or length_min > 1:
        rules["pattern"] = TABLE_NAME_PATTERN
    return rules


def failures_message(failures: list[str]) -> str:
    """The message that lists the failures."""
    plural = "" if len(failures) == 1 else "s"
    return f"{len(failures)} validation error{plural} detected: {'; '.join(failures)}"


class _Place(NamedTuple):
    """Where a value is in a request, as the older layer shows it and as the newer one does."""

    older: str
    newer: str

    def member(self, name: str) -> "_Place":
        return _Place(f"{self.older}{name[0].lower()}{name[1:]}", self.newer + name)

    def inside(self, step: str = "") -> "_Place":
        return _Place(f"{self.older}.{step}", f"{self.newer}.{step}")


class _Constraints:
    def __init__(self, shapes: Shapes, *, names_a_new_table: bool, is_newer: bool) -> None:
        self._shapes = shapes
        self._is_newer = is_newer
        self._table_name_length_min = TABLE_NAME_LENGTH_MIN if names_a_new_table else 1

    def structure(self, name: str, value: Mapping[str, Any], path: _Place) -> Iterator[str]:
        shape = self._shapes[name]
        members: Mapping[str, str] = shape.get("members", {})
        first = MEMBER_ORDER.get(name, ())
        if self._is_newer:
            first = NEWER_MEMBER_ORDER.get(name, first)
        order = (*first, *(member for member in members if member not in first))
        required = shape.get("required", ())
        more, unless = REQUIRED_UNLESS.get(name, ((), ""))
        if unless not in value:
            required = (*required, *more)
        for member in order:
            inner = value.get(member)
            where = path.member(member)
            if inner is None:
                if member in required:
                    yield _failure(None, where.older, "Member must not be null")
                continue
            extra: ShapeDefinition = MEMBER_CONSTRAINTS.get((name, member), {})
            if member == "TableName" and members[member] == "TableArn":
                extra = _table_name_rules(inner, self._table_name_length_min)
            yield from self._member(members[member], inner, where, extra)

    def _member(
        self, name: str, value: Any, where: _Place, extra: ShapeDefinition
    ) -> Iterator[str]:
        if name == "AttributeValue":
            return
        shape: ShapeDefinition = {**self._shapes[name], **extra}
        for rule in _broken_rules(shape, ENUM_ORDER.get(name), value):
            yield self._failure(name, value, where, rule)
        match shape["type"]:
            case "structure":
                yield from self.structure(name, value, where.inside())
            case "list":
                yield from self._elements(
                    shape["member"],
                    [
                        (where.inside(f"{number}.member"), inner)
                        for number, inner in enumerate(value[: _checked_count(shape, value)], 1)
                    ],
                    "Member must satisfy constraint",
                    (name, value, where),
                )
            case "map":
                if shape["key"] == "TableArn":
                    yield from self._table_names(name, value, where)
                yield from self._elements(
                    shape["value"],
                    [
                        (where.inside(f"{key}.member"), inner)
                        for key, inner in islice(value.items(), _checked_count(shape, value))
                    ],
                    "Map value must satisfy constraint",
                    (name, value, where),
                )
            case _:
                pass

    def _elements(
        self,
        name: str,
        elements: list[tuple[_Place, Any]],
        title: str,
        whole: tuple[str, Any, _Place],
    ) -> Iterator[str]:
        """Failures in elements: structures report each member, plain elements one failure of the whole."""
        if name == "AttributeValue":
            return
        shape = self._shapes[name]
        if shape["type"] == "structure":
            for where, inner in elements:
                if inner is None:
                    yield _failure(None, where.older, "Member must not be null")
                else:
                    yield from self.structure(name, inner, where.inside())
            return
        enum_order = ENUM_ORDER.get(name)
        if any(
            inner is None or any(True for _ in _broken_rules(shape, enum_order, inner))
            for _, inner in elements
        ):
            container, value, where = whole
            rules = ", ".join(_all_rules(shape, enum_order)) or "Member must not be null"
            yield _failure(self._echo(container, value), where.older, f"{title}: [{rules}]")
        if shape["type"] == "list":
            for where, inner in elements:
                yield from self._elements(
                    shape["member"],
                    [
                        (where.inside(f"{number}.member"), v)
                        for number, v in enumerate((inner or ())[: _checked_count(shape, inner)], 1)
                    ],
                    "Member must satisfy constraint",
                    (name, inner, where),
                )

    def _failure(self, name: str, value: Any, where: _Place, rule: str) -> str:
        """A member's failure. The newer layer shows few values, and names some enums in a way of its own."""
        if self._is_newer:
            enum = NEWER_ENUMS.get(name)
            if enum is not None:
                return f"Failed to satisfy constraint: Member must satisfy enum value set: [{', '.join(enum)}]"
            is_bound = rule.startswith(_BOUNDS)
            if is_bound and (rule.startswith(_LEAST) or not isinstance(value, str)):
                return f"Value at '{where.newer}' failed to satisfy constraint: {rule}"
        return _failure(self._echo(name, value), where.older, rule)

    def _table_names(self, name: str, value: Mapping[str, Any], where: _Place) -> Iterator[str]:
        """One failure of a whole map that has tables' names as its keys."""
        for key in value:
            rules = _table_name_rules(key, TABLE_NAME_LENGTH_MIN)
            if any(True for _ in _broken_rules({"type": "string", **rules}, None, key)):
                shown = ", ".join(_all_rules({"type": "string", **rules}, None))
                rule = f"Map keys must satisfy constraint: [{shown}]"
                echo = _json_echo(value) if self._is_newer else self._echo(name, value)
                yield _failure(echo, where.older, rule)
                return

    def _echo(self, name: str, value: Any) -> str:
        """A value as Java prints it, its end left out if it is very long."""
        parts: list[str] = []
        length = 0
        for part in self._parts_of_echo(name, value, 0):
            parts.append(part)
            length += len(part)
            if length > _ECHO_LENGTH_MAX:
                parts.append("...")
                break
        return "".join(parts)

    def _parts_of_echo(self, name: str, value: Any, depth: int) -> Iterator[str]:
        """What is nested deeper than any attribute value may be is left out."""
        if value is None:
            yield "null"
            return
        if depth > _ATTRIBUTE_VALUE_DEPTH_MAX:
            yield "..."
            return
        depth += 1
        shape = self._shapes[name]
        separator = ""
        match shape["type"]:
            case "structure":
                yield f"{name}("
                for member, inner in shape.get("members", {}).items():
                    yield f"{separator}{member[0].lower()}{member[1:]}="
                    yield from self._parts_of_echo(inner, value.get(member), depth)
                    separator = ", "
                yield ")"
            case "list":
                yield "["
                for item in value:
                    yield separator
                    yield from self._parts_of_echo(shape["member"], item, depth)
                    separator = ", "
                yield "]"
            case "map":
                yield "{"
                for key, item in value.items():
                    yield f"{separator}{key}="
                    yield from self._parts_of_echo(shape["value"], item, depth)
                    separator = ", "
                yield "}"
            case "boolean":
                yield "true" if value else "false"
            case _:
                yield str(value)[: _ECHO_LENGTH_MAX + 1]


def _json_echo(value: Any) -> str:
    """A value as JSON, its end left out if it is very long, all of it if it is too deep to be written."""
    try:
        return msgspec.json.encode(value).decode()[:_ECHO_LENGTH_MAX]
    except RecursionError:
        return "..."


def _checked_count(shape: ShapeDefinition, value: Any) -> int:
    """How many elements of a list or map to look at."""
    count = 0 if value is None else len(value)
    return _ELEMENTS_CHECKED_MAX if count > shape.get("max", count) else count


def _failure(echo: str | None, where: str, rule: str) -> str:
    value = "null" if echo is None else f"'{echo}'"
    return f"Value {value} at '{where}' failed to satisfy constraint: {rule}"


def _enum_rule(shape: ShapeDefinition, order: tuple[str, ...] | None) -> str:
    return f"Member must satisfy enum value set: [{', '.join(order or shape['enum'])}]"


def _broken_rules(
    shape: ShapeDefinition, enum_order: tuple[str, ...] | None, value: Any
) -> Iterator[str]:
    if "enum" in shape:
        if value not in shape["enum"]:
            yield _enum_rule(shape, enum_order)
        return
    if "pattern" in shape and _pattern(shape["pattern"])(value) is None:
        yield f"Member must satisfy regular expression pattern: {shape['pattern']}"
    is_number = shape["type"] in ("integer", "long", "double")
    size = value if is_number else len(value) if "min" in shape or "max" in shape else 0
    what = "value" if is_number else "length"
    if "min" in shape and size < shape["min"]:
        yield f"Member must have {what} greater than or equal to {shape['min']}"
    if "max" in shape and size > shape["max"]:
        yield f"Member must have {what} less than or equal to {shape['max']}"


def _all_rules(shape: ShapeDefinition, enum_order: tuple[str, ...] | None) -> Iterator[str]:
    """Every rule of a shape, as the service lists them for the elements of a plain list or map."""
    if "enum" in shape:
        yield _enum_rule(shape, enum_order)
    is_number = shape["type"] in ("integer", "long", "double")
    what = "value" if is_number else "length"
    if "max" in shape:
        yield f"Member must have {what} less than or equal to {shape['max']}"
        yield f"Member must have {what} greater than or equal to {shape.get('min', 0)}"
    elif "min" in shape:
        yield f"Member must have {what} greater than or equal to {shape['min']}"
    if "pattern" in shape:
        yield f"Member must satisfy regular expression pattern: {shape['pattern']}"


_PATTERNS: Final[dict[str, re.Pattern[str]]] = {}


def _pattern(text: str) -> Any:
    """The matcher of a whole value; patterns come from the model, so there are few."""
    pattern = _PATTERNS.get(text)
    if pattern is None:
        pattern = _PATTERNS[text] = re.compile(text)
    return pattern.fullmatch
