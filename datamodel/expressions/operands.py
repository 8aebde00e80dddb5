"""Operands compiled to functions of an item and the request's values.

A compiled operand returns a normal attribute value, or None where the item has none: the path leads nowhere,
or size() is asked of a type that has no size.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from datamodel.attribute_values import AttributeValue, binary
from datamodel.expressions.syntax_tree import Function, Literal, Operand, Path, Value

Values: TypeAlias = Mapping[str, AttributeValue]
Item: TypeAlias = Mapping[str, AttributeValue]
Getter: TypeAlias = Callable[[Item, Values], AttributeValue | None]


def compile_path(path: Path) -> Getter:
    """What the item has at a path."""
    name = path.elements[0]
    assert isinstance(name, str), "a path begins with an attribute's name"
    if len(path.elements) == 1:

        def get_attribute(item: Item, _values: Values) -> AttributeValue | None:
            return item.get(name)

        return get_attribute
    steps = path.elements[1:]

    def get_nested(item: Item, _values: Values) -> AttributeValue | None:
        value: AttributeValue | None = item.get(name)
        for step in steps:
            if value is None:
                return None
            value = child(value, step)
        return value

    return get_nested


def child(value: AttributeValue, step: str | int) -> AttributeValue | None:
    """The member of a map or list value; None if there is none, or it is neither."""
    found: AttributeValue | None
    if isinstance(step, str):
        members = value.get("M")
        found = None if members is None else members.get(step)
    else:
        elements = value.get("L")
        found = elements[step] if elements is not None and step < len(elements) else None
    return found


def compile_operand(operand: Operand) -> Getter:
    """An operand of a condition."""
    if isinstance(operand, Path):
        return compile_path(operand)
    if isinstance(operand, Value):
        placeholder = operand.name

        def get_value(_item: Item, values: Values) -> AttributeValue | None:
            return values[placeholder]

        return get_value
    if isinstance(operand, Literal):
        literal = operand.value

        def get_literal(_item: Item, _values: Values) -> AttributeValue | None:
            return literal

        return get_literal
    return _compile_size(operand)


def _compile_size(function: Function) -> Getter:
    assert function.name == "size", "no other function is an operand of a condition"
    get = compile_operand(function.arguments[0])

    def get_size(item: Item, values: Values) -> AttributeValue | None:
        value = get(item, values)
        size = None if value is None else size_of(value)
        return None if size is None else {"N": str(size)}

    return get_size


def size_of(value: AttributeValue) -> int | None:
    """What size() says of a value.

    Returns:
        UTF-16 code units of a string, bytes of a binary, number of elements of a document or set; None for
        other types.
    """
    ((kind, content),) = value.items()
    return _size_of_content(kind, content)


def _size_of_content(kind: str, content: Any) -> int | None:
    if kind == "S":
        return len(content) if content.isascii() else len(content.encode("utf-16-le")) // 2
    if kind == "B":
        return len(binary({"B": content}))
    if kind in ("N", "BOOL", "NULL"):
        return None
    return len(content)
