"""Updates: UpdateExpression, applied to an item without changing it.

All right sides and all paths refer to the item as it was before the update: `SET x = :v, y = x` reads the old
x, and list indexes mean the positions before anything was removed or appended. SET beyond a list's end appends,
several such elements in the order of their indexes. Only maps and lists on the way to a change are copied;
everything else is shared between the old item, the values and the new item, so none of them may be changed.

Source: behaviour and texts as observed on the service, mostly by the authors of ScyllaDB's Alternator.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, TypeAlias

from datamodel.attribute_values import (
    SET_TYPES,
    TOO_DEEP,
    AttributeValue,
    in_order,
    type_of,
    value_size,
)
from datamodel.errors import ValidationError
from datamodel.expressions.checker import Usage, check_update
from datamodel.expressions.conditions import NO_USAGE
from datamodel.expressions.operands import Values, compile_path
from datamodel.expressions.parse_cache import ParseCache
from datamodel.expressions.projections import Projection
from datamodel.expressions.statement_sizes import statement_size
from datamodel.expressions.syntax_tree import (
    Action,
    Arithmetic,
    Function,
    Literal,
    Operand,
    Path,
    Value,
)
from datamodel.expressions.update_parser import parse_update_text
from datamodel.limits import ITEM_SIZE_BYTES_MAX, NESTING_DEPTH_MAX
from datamodel.numbers import add_numbers, subtract_numbers

Item: TypeAlias = dict[str, AttributeValue]
Source: TypeAlias = Callable[[Item, Values], AttributeValue]

MISSING_ATTRIBUTE: Final = (
    "The provided expression refers to an attribute that does not exist in the item"
)
INVALID_PATH: Final = "The document path provided in the update expression is invalid for update"
INCORRECT_TYPE: Final = "An operand in the update expression has an incorrect data type"
TOO_LARGE: Final = "Item size to update has exceeded the maximum allowed size"


class UpdateResult:
    """An updated item.

    Attributes:
        item: The new item. It shares values with the old one.
        touched: The paths that the update names as its targets, in the order of the text.
    """

    __slots__ = ("_projection", "item", "touched")

    def __init__(self, item: Item, touched: tuple[Path, ...], projection: Projection) -> None:
        self.item = item
        self.touched = touched
        self._projection = projection

    def updated_old(self, old: Mapping[str, AttributeValue] | None) -> Item:
        """The touched parts of the item before the update, for UPDATED_OLD; empty if it had none of them."""
        return {} if old is None else self._projection.apply(old)

    def updated_new(self) -> Item:
        """The touched parts of the new item, for UPDATED_NEW: what its paths lead to now.

        As on the service, an element that SET appended at an index beyond the list's end is not found there,
        and the element that moved up to the index of a removed one is.
        """
        return self._projection.apply(self.item)


class Update:
    """A checked update. Immutable; shared by all requests with the same text and names.

    Attributes:
        names_used: Placeholders for names in it, `#` included.
        values_used: Placeholders for values in it, `:` included.
        top_level_attributes: The item's attributes that it reads or changes, each once.
        nested_attributes: Those of them into which a path leads.
        changed_attributes: The item's attributes that it changes, in whole or in part, each once.
        creates_item: Whether it makes an item where there is none: unless it only removes attributes.
    """

    __slots__ = (
        "_checks",
        "_is_flat",
        "_plan",
        "_projection",
        "_statement_size",
        "_statement_values",
        "_steps",
        "changed_attributes",
        "creates_item",
        "names_used",
        "nested_attributes",
        "top_level_attributes",
        "touched",
        "values_used",
    )

    def __init__(self, actions: Iterable[Action] | None, usage: Usage = NO_USAGE) -> None:
        """An update from actions, checked by `checker` or built by hand with paths that do not overlap.

        Args:
            actions: None if a check on the values always fails, so that it is never applied.
            usage: What the actions use.
        """
        steps = [_Step(action) for action in actions or ()]
        self._steps = tuple(steps)
        self._is_flat = all(len(step.path.elements) == 1 for step in steps)
        self._plan = _plan(steps)
        self.touched = tuple(step.path for step in steps)
        self._projection = Projection(self.touched)
        self._checks = usage.checks
        self.names_used = usage.names_used
        self.values_used = usage.values_used
        self.top_level_attributes = usage.top_level_attributes
        self.nested_attributes = usage.nested_attributes
        self.changed_attributes = self._projection.top_level_attributes
        self.creates_item = not steps or not all(step.is_removal for step in steps)
        self._statement_size, self._statement_values = statement_size(actions or ())

    def check_values(self, values: Values) -> None:
        """Check the request's values against the expression. To be called before the first `apply`.

        Raises:
            ValidationError: A value is not defined or has a type that an operator or function refuses, or an
                error comes after such a check in the service's order.
        """
        for check in self._checks:
            check(values)

    def statement_size_max(self, values_size: int) -> int:
        """A bound for the statement's size when all values together have so many bytes: if it is small there is no
        need to look at them.
        """
        return self._statement_size + len(self._statement_values) * values_size

    def check_statement_size(self, values: Values) -> None:
        """Check the size that the service gives the expression itself, with its values, whatever the item.

        Raises:
            ValidationError: It is larger than an item may be.
        """
        used = sum(value_size(values[name]) for name in self._statement_values)
        if self._statement_size + used > ITEM_SIZE_BYTES_MAX:
            raise ValidationError(TOO_LARGE)

    def check_key(self, key_names: Collection[str]) -> None:
        """Check that no key attribute is to be changed.

        Raises:
            ValidationError: One is.
        """
        for name in self.changed_attributes:
            if name in key_names:
                raise ValidationError(
                    f"One or more parameter values were invalid: Cannot update attribute {name}. "
                    "This attribute is part of the key"
                )

    def assigned_types(self, values: Values) -> dict[str, str]:
        """Types that the update gives whole attributes, by their names, as far as its text alone tells."""
        types: dict[str, str] = {}
        for step in self._steps:
            source = step.source
            if source is not None and len(step.path.elements) == 1:
                value = values[source.name] if isinstance(source, Value) else source.value
                types[step.name] = next(iter(value))
        return types

    def apply(
        self,
        item: Item,
        values: Values,
        key_names: Collection[str] = (),
        item_exists: bool = True,
    ) -> UpdateResult:
        """The item after the update.

        Its size is not checked, save that an update whose new values alone are too large is refused before
        they are put together: a short text can ask for gigabytes by naming one large value many times.

        Args:
            item: The normal item before the update, or just its key if there is none. It is not changed.
            values: Normal values for `values_used`, checked by `check_values`.
            key_names: Attributes that must not be changed.
            item_exists: False if there is no item; REMOVE of a path that leads nowhere is then ignored.

        Raises:
            ValidationError: With the service's text; the item does not fit the expression.
        """
        if key_names:
            self.check_key(key_names)
        changes = self._changes(item, values)
        if self._is_flat:
            new = item.copy()
            for step, value in zip(self._steps, changes, strict=True):
                if value is None:
                    new.pop(step.name, None)
                else:
                    new[step.name] = value
        else:
            for step, value in zip(self._steps, changes, strict=True):
                if value is not None and len(step.path.elements) > 1:
                    _check_depth(value, len(step.path.elements))
            new = _changed_members(item, self._plan, changes, ignores_missing=not item_exists)
        return UpdateResult(new, self.touched, self._projection)

    def _changes(self, item: Item, values: Values) -> list[AttributeValue | None]:
        """The new value for each step, None where it removes."""
        if len(self._steps) == 1:
            return [self._steps[0].change(item, values)]
        changes: list[AttributeValue | None] = []
        size = 0
        sizes: dict[int, int] = {}
        for step in self._steps:
            value = step.change(item, values)
            changes.append(value)
            if value is not None:
                # All values end up in the item, so it is at least as large as they are together.
                size += _least_size(value, sizes)
                if size > ITEM_SIZE_BYTES_MAX:
                    raise ValidationError(TOO_LARGE)
        return changes


def _least_size(value: AttributeValue, sizes: dict[int, int]) -> int:
    """At most the value's size in bytes, and near it if that is large.

    Args:
        value: A normal value, kept alive while `sizes` is in use.
        sizes: What is known, by identity; filled in.
    """
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content)
    if kind not in ("M", "L") and kind not in SET_TYPES:
        return 0
    size = sizes.get(id(value))
    if size is None:
        size = sizes[id(value)] = value_size(value)
    return size


# --- what an action makes of the item's old value ----------------------------------------------------------


class _Step:
    """One action, compiled.

    Attributes:
        path: What it changes.
        name: The first element of the path.
        is_removal: Whether it can only remove.
        source: The value that the request itself has for it, None if there is more to it than that.
        change: The new value at the path for an item and values; None to remove it.
    """

    __slots__ = ("change", "is_removal", "name", "path", "source")

    def __init__(self, action: Action) -> None:
        self.path = action.path
        self.name = str(action.path.elements[0])
        self.is_removal = action.section == "REMOVE"
        self.source = action.value if isinstance(action.value, Value | Literal) else None
        self.change = _compile_action(action)


def _compile_action(action: Action) -> Callable[[Item, Values], AttributeValue | None]:
    if action.section == "REMOVE":
        return _remove
    value = action.value
    assert value is not None, "only REMOVE has no value"
    if action.section == "SET":
        return _compile_arithmetic(value) if isinstance(value, Arithmetic) else _compile(value)
    assert not isinstance(value, Arithmetic), "arithmetic is for SET"
    combine = _add if action.section == "ADD" else _subtract
    current, source = compile_path(action.path), _compile(value)

    def change(item: Item, values: Values) -> AttributeValue | None:
        return combine(current(item, values), source(item, values))

    return change


def _remove(_item: Item, _values: Values) -> None:
    return None


def _add(current: AttributeValue | None, value: AttributeValue) -> AttributeValue:
    """ADD: the sum of numbers or the union of sets."""
    if current is None:
        return value
    kind = type_of(value)
    if kind not in current:
        raise ValidationError(INCORRECT_TYPE)
    if kind == "N":
        return {"N": add_numbers(current["N"], value["N"])}
    if kind in SET_TYPES:
        return {kind: in_order(kind, {*current[kind], *value[kind]})}
    if kind == "L":
        # Only the legacy parameter AttributeUpdates adds to lists; the checker refuses it in expressions.
        return {"L": current["L"] + value["L"]}
    raise ValidationError(INCORRECT_TYPE)


def _subtract(current: AttributeValue | None, value: AttributeValue) -> AttributeValue | None:
    """DELETE: the difference of sets; nothing remains of a set without elements."""
    if current is None:
        return None
    kind = type_of(value)
    if kind not in current or kind not in SET_TYPES:
        raise ValidationError(INCORRECT_TYPE)
    removed = set(value[kind])
    remaining = [element for element in current[kind] if element not in removed]
    return {kind: in_order(kind, remaining)} if remaining else None


def _compile(operand: Operand) -> Source:
    """An operand of SET as a function that fails where the item has no value."""
    if isinstance(operand, Value):
        placeholder = operand.name

        def get_value(_item: Item, values: Values) -> AttributeValue:
            return values[placeholder]

        return get_value
    if isinstance(operand, Literal):
        literal = operand.value

        def get_literal(_item: Item, _values: Values) -> AttributeValue:
            return literal

        return get_literal
    if isinstance(operand, Function):
        return _compile_function(operand)
    get = compile_path(operand)

    def get_existing(item: Item, values: Values) -> AttributeValue:
        value = get(item, values)
        if value is None:
            raise ValidationError(MISSING_ATTRIBUTE)
        return value

    return get_existing


def _compile_function(function: Function) -> Source:
    first, second = function.arguments
    if function.name == "if_not_exists":
        assert isinstance(first, Path), "checked before"
        get, default = compile_path(first), _compile(second)

        def get_or_default(item: Item, values: Values) -> AttributeValue:
            value = get(item, values)
            return default(item, values) if value is None else value

        return get_or_default
    assert function.name == "list_append", "no other function has a value in an update"
    head, tail = _compile(first), _compile(second)

    def append(item: Item, values: Values) -> AttributeValue:
        front, back = head(item, values), tail(item, values)
        if "L" not in front or "L" not in back:
            raise ValidationError(INCORRECT_TYPE)
        return {"L": front["L"] + back["L"]}

    return append


def _compile_arithmetic(arithmetic: Arithmetic) -> Source:
    left, right = _compile(arithmetic.left), _compile(arithmetic.right)
    combine = add_numbers if arithmetic.operator == "+" else subtract_numbers

    def calculate(item: Item, values: Values) -> AttributeValue:
        a, b = left(item, values), right(item, values)
        if "N" not in a or "N" not in b:
            raise ValidationError(INCORRECT_TYPE)
        return {"N": combine(a["N"], b["N"])}

    return calculate


# --- putting the new values in place -----------------------------------------------------------------------


class _Plan:
    """What happens inside one map or list: to each touched member a step, or a plan for what is in it.

    Attributes:
        steps: Indexes of the steps that end here, by member.
        plans: Plans for members into which paths lead.
        is_removal: Whether only REMOVE leads here.
    """

    __slots__ = ("is_removal", "plans", "steps")

    def __init__(self) -> None:
        self.steps: dict[str | int, int] = {}
        self.plans: dict[str | int, _Plan] = {}
        self.is_removal = True


def _plan(steps: list[_Step]) -> _Plan:
    root = _Plan()
    for index, step in enumerate(steps):
        plan = root
        for element in step.path.elements[:-1]:
            plan = plan.plans.setdefault(element, _Plan())
            plan.is_removal = plan.is_removal and step.is_removal
        plan.steps[step.path.elements[-1]] = index
    return root


def _changed_members(
    members: Item, plan: _Plan, changes: list[AttributeValue | None], ignores_missing: bool
) -> Item:
    """A copy of an item's or a map's members with the plan's changes made."""
    new = members.copy()
    for name, index in plan.steps.items():
        assert isinstance(name, str), "the checker lets no path take a map for a list"
        value = changes[index]
        if value is None:
            new.pop(name, None)
        else:
            new[name] = value
    for name, inner in plan.plans.items():
        assert isinstance(name, str), "the checker lets no path take a map for a list"
        member = members.get(name)
        if member is None:
            if ignores_missing and inner.is_removal:
                continue
            raise ValidationError(INVALID_PATH)
        new[name] = _changed(member, inner, changes)
    return new


def _changed_elements(
    elements: list[AttributeValue], plan: _Plan, changes: list[AttributeValue | None]
) -> list[AttributeValue]:
    """A copy of a list with the plan's changes made, all at the old positions."""
    new: list[AttributeValue | None] = list(elements)
    for index, inner in plan.plans.items():
        if not isinstance(index, int) or index >= len(elements):
            raise ValidationError(INVALID_PATH)
        new[index] = _changed(elements[index], inner, changes)
    for index, step in sorted(plan.steps.items()):
        assert isinstance(index, int), "the checker lets no path take a map for a list"
        if index < len(elements):
            new[index] = changes[step]
        else:
            new.append(changes[step])
    return [element for element in new if element is not None]


def _changed(
    value: AttributeValue, plan: _Plan, changes: list[AttributeValue | None]
) -> AttributeValue:
    """A map or list with the plan's changes made. As deep as a document path at most."""
    first: Any = next(iter(plan.steps or plan.plans))
    if isinstance(first, str):
        if "M" not in value:
            raise ValidationError(INVALID_PATH)
        return {"M": _changed_members(value["M"], plan, changes, ignores_missing=False)}
    if "L" not in value:
        raise ValidationError(INVALID_PATH)
    return {"L": _changed_elements(value["L"], plan, changes)}


def _check_depth(value: AttributeValue, level: int) -> None:
    """Fail if a value, put at this level of an item (1 at the top), nests deeper than an item may."""
    pending = [(value, level)]
    while pending:
        current, depth = pending.pop()
        ((kind, content),) = current.items()
        if kind not in ("M", "L") or not content:
            continue
        if depth >= NESTING_DEPTH_MAX:
            raise ValidationError(TOO_DEEP)
        members = content.values() if kind == "M" else content
        pending.extend((member, depth + 1) for member in members)


# --- parsing -----------------------------------------------------------------------------------------------


def _parse(kind: str, text: str, names: Mapping[str, str]) -> Update:
    return Update(*check_update(kind, parse_update_text(kind, text), names))


_cache = ParseCache(_parse)


def parse_update(text: str, names: Mapping[str, str] | None) -> Update:
    """Parse and check an update expression.

    Errors that depend on values, and some that the service reports after those, are left to
    `Update.check_values`: calling it right after this gives the service's error in every case.

    Args:
        text: The expression.
        names: `ExpressionAttributeNames`.

    Raises:
        ValidationError: With the service's text.
    """
    return _cache.get("UpdateExpression", text, names)
