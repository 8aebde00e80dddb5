"""From parsed expressions to checked trees: names looked up, every rule kept that needs no item.

The service checks in passes, and the first error of the first failing pass is the one it reports:

 1. in the order of the text: reserved words, list indexes, unknown and misplaced functions (the parser's
    faults); for an update section by section, a repeated section after the faults of its first occurrence;
 2. the number of operators;
 3. conditions: in the order of the text, for each function or operator first its operands (names and values
    defined, depth of paths), then their number, then that the first differs from the others, then their types;
    updates: names of the changed paths, overlapping paths; then backwards, from the last action to the first,
    all names, and backwards again values, numbers of operands and types;
    projections: path by path names and depth, then overlapping paths.

A tree is checked once per text and names, but values differ from request to request. So pass 3 gives, besides
the tree, a list of checks to be run on the values, in the same order; an error that needs no values is raised
at once if no check on values comes before it, else it becomes the last check of that list.

Source: order and texts as observed on the service, mostly by the authors of dynalite.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias, assert_never

from datamodel.attribute_values import TYPES, AttributeValue, compare, type_of
from datamodel.errors import ValidationError
from datamodel.expressions.parser import ParsedExpression
from datamodel.expressions.path_clashes import find_clash
from datamodel.expressions.syntax_tree import (
    Action,
    Alias,
    And,
    Arithmetic,
    Between,
    Comparison,
    ConditionTree,
    Function,
    In,
    Literal,
    Not,
    Operand,
    Or,
    Path,
    Value,
)
from datamodel.limits import (
    DOCUMENT_PATH_DEPTH_MAX,
    EXPRESSION_IN_OPERANDS_MAX,
    EXPRESSION_OPERATORS_MAX,
)

Values: TypeAlias = Mapping[str, AttributeValue]
Check: TypeAlias = Callable[[Values], None]

_OPERAND_COUNTS: Final = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
    "if_not_exists": 2,
    "list_append": 2,
}
_ORDERED_TYPES: Final = frozenset(("S", "N", "B"))
_SIZED_TYPES: Final = TYPES - {"N", "BOOL", "NULL"}
_TYPES_BY_FUNCTION: Final = {
    "begins_with": frozenset(("S", "B")),
    "list_append": frozenset(("L",)),
    "size": _SIZED_TYPES,
}
_NUMBER_TYPES: Final = frozenset(("N",))
_TYPES_BY_SECTION: Final = {
    "ADD": frozenset(("N", "SS", "NS", "BS")),
    "DELETE": frozenset(("SS", "NS", "BS")),
}
# ADD and DELETE spell types out in their errors.
_LONG_TYPE_NAMES: Final = {
    "S": "STRING",
    "N": "NUMBER",
    "B": "BINARY",
    "BOOL": "BOOLEAN",
    "NULL": "NULL",
    "M": "MAP",
    "L": "LIST",
    "SS": "STRING_SET",
    "NS": "NUMBER_SET",
    "BS": "BINARY_SET",
}
_ANY_TYPE: Final = "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}"
_TYPE_NAMES: Final = "{B,NULL,SS,BOOL,L,BS,N,NS,S,M}"


@dataclass(frozen=True, slots=True)
class Usage:
    """What an expression refers to, and the checks that its values must pass.

    Attributes:
        names_used: Placeholders for names, `#` included.
        values_used: Placeholders for values, `:` included.
        top_level_attributes: Names of the item's attributes, each once, in the order of the text.
        nested_attributes: Those of them into which a path leads (`a.b`, `a[0]`).
        checks: To be run on the values in this order; each raises ValidationError.
    """

    names_used: frozenset[str]
    values_used: frozenset[str]
    top_level_attributes: tuple[str, ...]
    nested_attributes: tuple[str, ...]
    checks: tuple[Check, ...]


class _DeferredError(Exception):
    """An error that must wait for the checks on values before it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class _Checker:
    def __init__(self, kind: str, names: Mapping[str, str]) -> None:
        self.kind = kind
        self.names = names
        self.names_used: set[str] = set()
        # Dicts as ordered sets.
        self.values_used: dict[str, None] = {}
        self.top_level: dict[str, None] = {}
        self.nested: dict[str, None] = {}
        self.checks: list[Check] = []

    def usage(self) -> Usage:
        return Usage(
            frozenset(self.names_used),
            frozenset(self.values_used),
            tuple(self.top_level),
            tuple(self.nested),
            tuple(self.checks),
        )

    def error(self, text: str) -> ValidationError:
        return ValidationError(f"Invalid {self.kind}: {text}")

    def fail(self, text: str) -> NoReturn:
        if self.checks:
            raise _DeferredError(text)
        raise self.error(text)

    def defer(self, deferred: _DeferredError) -> None:
        text = deferred.text

        def check(_values: Values) -> None:
            raise self.error(text)

        self.checks.append(check)

    def check_parsed(self, parsed: ParsedExpression) -> None:
        """Passes 1 and 2."""
        if parsed.faults:
            raise self.error(min(parsed.faults).text)
        if parsed.operator_count > EXPRESSION_OPERATORS_MAX:
            raise self.error(
                "The expression contains too many operators; "
                f"operator count: {EXPRESSION_OPERATORS_MAX + 1}"
            )

    # --- paths and values

    def name(self, alias: str) -> str:
        self.names_used.add(str(alias))
        name = self.names.get(alias)
        if name is None:
            self.fail(
                "An expression attribute name used in the document path is not defined; "
                f"attribute name: {alias}"
            )
        return name

    def path(self, path: Path) -> Path:
        """The path with its names looked up."""
        elements = tuple(
            self.name(part) if isinstance(part, Alias) else part for part in path.elements
        )
        if len(elements) > DOCUMENT_PATH_DEPTH_MAX:
            self.fail(
                f"The document path has too many nesting levels; nesting levels: {len(elements)}"
            )
        first = elements[0]
        assert isinstance(first, str), "a path begins with an attribute's name"
        self.top_level[first] = None
        if len(elements) > 1:
            self.nested[first] = None
        return Path(elements)

    def value(self, value: Value) -> None:
        name = value.name
        if name in self.values_used:
            return
        self.values_used[name] = None

        def check(values: Values) -> None:
            if name not in values:
                raise self.error(
                    "An expression attribute value used in expression is not defined; "
                    f"attribute value: {name}"
                )

        self.checks.append(check)

    # --- operands

    def operand(self, operand: Operand) -> Operand:
        """Checks an operand and all in it; returns it with its names looked up."""
        if isinstance(operand, Path):
            return self.path(operand)
        if isinstance(operand, Value):
            self.value(operand)
            return operand
        if isinstance(operand, Literal):
            return operand
        return self.function(operand)

    def function(self, function: Function) -> Function:
        arguments = []
        for argument in function.arguments:
            arguments.append(self.operand(argument))  # noqa: PERF401  one stack frame less per level
        checked = Function(function.name, tuple(arguments))
        self.check_function(checked)
        return checked

    def check_function(self, function: Function) -> None:
        name, arguments = function.name, function.arguments
        if len(arguments) != _OPERAND_COUNTS[name]:
            self.fail(
                "Incorrect number of operands for operator or function; "
                f"operator or function: {name}, number of operands: {len(arguments)}"
            )
        if name in ("attribute_exists", "attribute_not_exists", "if_not_exists"):
            if not isinstance(arguments[0], Path):
                self.fail(
                    f"Operator or function requires a document path; operator or function: {name}"
                )
        elif name in ("begins_with", "contains", "attribute_type"):
            self.check_distinct(name, *arguments)
            if name == "attribute_type":
                self.check_type_name(arguments[1])
        allowed = _TYPES_BY_FUNCTION.get(name)
        if allowed is not None:
            self.check_types(name, arguments, allowed)

    def check_distinct(self, operator: str, first: Operand, *others: Operand) -> None:
        if isinstance(first, Path) and first in others:
            self.fail(
                "The first operand must be distinct from the remaining operands for this operator "
                f"or function; operator: {operator}, first operand: {first}"
            )

    def check_types(
        self, operator: str, operands: tuple[Operand, ...], allowed: frozenset[str]
    ) -> None:
        """Checks the types of those operands whose type does not depend on the item."""
        for operand in operands:
            if isinstance(operand, Value):
                self.checks.append(self.value_type_check(operator, operand.name, allowed))
            elif isinstance(operand, Function) and operand.name == "size" and "N" not in allowed:
                self.fail(_wrong_type(operator, "N"))

    def value_type_check(self, operator: str, name: str, allowed: frozenset[str]) -> Check:
        def check(values: Values) -> None:
            actual = type_of(values[name])
            if actual not in allowed:
                raise self.error(_wrong_type(operator, actual))

        return check

    def check_type_name(self, operand: Operand) -> None:
        if not isinstance(operand, Value):
            is_number = isinstance(operand, Function) and operand.name == "size"
            self.fail(_wrong_type("attribute_type", "N" if is_number else _ANY_TYPE))
        name = operand.name

        def check(values: Values) -> None:
            value = values[name]
            if "S" not in value:
                raise self.error(_wrong_type("attribute_type", type_of(value)))
            if value["S"] not in TYPES:
                raise self.error(
                    f"Invalid attribute type name found; type: {value['S']}, "
                    f"valid types: {_TYPE_NAMES}"
                )

        self.checks.append(check)

    # --- conditions

    def condition(self, tree: ConditionTree) -> ConditionTree:
        """Checks a condition and all in it; returns it with its names looked up."""
        match tree:
            case And() | Or():
                terms = []
                for term in tree.terms:
                    terms.append(self.condition(term))  # noqa: PERF401  one stack frame less per level
                return And(tuple(terms)) if isinstance(tree, And) else Or(tuple(terms))
            case Not():
                return Not(self.condition(tree.term))
            case Function():
                return self.function(tree)
            case Comparison():
                left, right = self.operand(tree.left), self.operand(tree.right)
                self.check_distinct(tree.operator, left, right)
                if tree.operator not in ("=", "<>"):
                    self.check_types(tree.operator, (left, right), _ORDERED_TYPES)
                return Comparison(tree.operator, left, right)
            case Between():
                return self.between(tree)
            case In():
                return self.membership(tree)
            case _:
                assert_never(tree)

    def between(self, tree: Between) -> Between:
        operand = self.operand(tree.operand)
        low, high = self.operand(tree.low), self.operand(tree.high)
        self.check_distinct("BETWEEN", operand, low, high)
        self.check_types("BETWEEN", (operand, low, high), _ORDERED_TYPES)
        if isinstance(low, Value) and isinstance(high, Value):
            self.checks.append(self.bounds_check(low.name, high.name))
        return Between(operand, low, high)

    def bounds_check(self, low: str, high: str) -> Check:
        def check(values: Values) -> None:
            lower, upper = values[low], values[high]
            order = compare(lower, upper)
            if order is not None and order <= 0:
                return
            rule = (
                "same data type for lower and upper bounds"
                if order is None
                else "upper bound to be greater than or equal to lower bound"
            )
            raise self.error(
                f"The BETWEEN operator requires {rule}; lower bound operand: "
                f"AttributeValue: {_shown(lower)}, upper bound operand: "
                f"AttributeValue: {_shown(upper)}"
            )

        return check

    def membership(self, tree: In) -> In:
        operand = self.operand(tree.operand)
        candidates = tuple([self.operand(candidate) for candidate in tree.candidates])
        if len(candidates) > EXPRESSION_IN_OPERANDS_MAX:
            self.fail(
                "The IN operator is provided with too many operands; "
                f"number of operands: {len(candidates)}"
            )
        self.check_distinct("IN", operand, *candidates)
        return In(operand, candidates)

    # --- updates and projections

    def check_overlaps(self, paths: list[Path]) -> None:
        clash = find_clash(paths)
        if clash is not None:
            what, one, two = clash
            self.fail(
                f"Two document paths {what} with each other; must remove or rewrite one of these "
                f"paths; path one: {one}, path two: {two}"
            )

    def actions(self, actions: tuple[Action, ...]) -> tuple[Action, ...]:
        targets = [self.path(action.path) for action in actions]
        self.check_overlaps(targets)
        for action in reversed(actions):
            if action.value is not None:
                self.look_up_names(action.value)
        checked = [
            self.action(action, target)
            for action, target in zip(reversed(actions), reversed(targets), strict=True)
        ]
        checked.reverse()
        return tuple(checked)

    def look_up_names(self, operand: Operand | Arithmetic) -> None:
        """Fails on the first name of a right side that is not defined."""
        if isinstance(operand, Path):
            for part in operand.elements:
                if isinstance(part, Alias):
                    self.name(part)
        elif isinstance(operand, Function):
            for argument in operand.arguments:
                self.look_up_names(argument)
        elif isinstance(operand, Arithmetic):
            self.look_up_names(operand.left)
            self.look_up_names(operand.right)

    def action(self, action: Action, target: Path) -> Action:
        value = action.value
        if value is None:
            return Action(action.section, target)
        if isinstance(value, Arithmetic):
            left, right = self.operand(value.left), self.operand(value.right)
            self.check_types(value.operator, (left, right), _NUMBER_TYPES)
            return Action(action.section, target, Arithmetic(value.operator, left, right))
        checked = self.operand(value)
        if action.section != "SET" and isinstance(checked, Value):
            self.checks.append(self.section_type_check(action.section, checked.name))
        return Action(action.section, target, checked)

    def section_type_check(self, section: str, name: str) -> Check:
        allowed = _TYPES_BY_SECTION[section]

        def check(values: Values) -> None:
            actual = type_of(values[name])
            if actual not in allowed:
                raise self.error(
                    f"Incorrect operand type for operator or function; operator: {section}, "
                    f"operand type: {_LONG_TYPE_NAMES[actual]}, "
                    f"typeSet: ALLOWED_FOR_{section}_OPERAND"
                )

        return check


def _wrong_type(operator: str, actual: str) -> str:
    return (
        "Incorrect operand type for operator or function; "
        f"operator or function: {operator}, operand type: {actual}"
    )


def _shown(value: AttributeValue) -> str:
    ((kind, content),) = value.items()
    return f"{{{kind}:{content}}}"


def check_condition(
    kind: str, parsed: ParsedExpression, names: Mapping[str, str]
) -> tuple[ConditionTree | None, Usage]:
    """Check a parsed condition, filter or key condition.

    Args:
        kind: Name of the request member, for errors.
        parsed: From `parse_condition_text`.
        names: `ExpressionAttributeNames`.

    Returns:
        The tree, None if the checks on values are bound to fail; and what it uses.

    Raises:
        ValidationError: The first error, if it does not depend on values.
    """
    assert parsed.condition is not None
    checker = _Checker(kind, names)
    checker.check_parsed(parsed)
    tree: ConditionTree | None = None
    try:
        tree = checker.condition(parsed.condition)
    except _DeferredError as deferred:
        checker.defer(deferred)
    return tree, checker.usage()


def check_update(
    kind: str, parsed: ParsedExpression, names: Mapping[str, str]
) -> tuple[tuple[Action, ...] | None, Usage]:
    """Check a parsed update; arguments, result and errors as of `check_condition`."""
    checker = _Checker(kind, names)
    checker.check_parsed(parsed)
    actions: tuple[Action, ...] | None = None
    try:
        actions = checker.actions(parsed.actions)
    except _DeferredError as deferred:
        checker.defer(deferred)
    return actions, checker.usage()


def check_projection(
    kind: str, parsed: ParsedExpression, names: Mapping[str, str]
) -> tuple[tuple[Path, ...], Usage]:
    """Check a parsed projection; arguments and errors as of `check_condition`."""
    checker = _Checker(kind, names)
    checker.check_parsed(parsed)
    paths = [checker.path(path) for path in parsed.paths]
    checker.check_overlaps(paths)
    return tuple(paths), checker.usage()
