"""Tokens to syntax trees: the grammar of conditions and projections (updates: `update_parser.py`).

    condition  = operand comparator operand | operand BETWEEN operand AND operand
               | operand IN ( operand {, operand} ) | function | NOT condition
               | condition AND condition | condition OR condition | ( condition )
    operand    = path | value | function | ( operand )
    function   = identifier ( operand {, operand} )
    path       = (identifier | name) { . (identifier | name) | [ index ] }
    projection = path {, path}

NOT binds tighter than AND, AND tighter than OR. A second pair of parentheses around the same thing is an
error of its own. Nothing here recurses: open parentheses and calls live on a list, so no expression, however
it is nested, can exhaust the stack. A syntax error names the first token with which no expression could go on.

Trees leave here unchecked (`checker.py`): names are not looked up, and functions may be unknown or misplaced;
such faults that need no context are noted with their position, for the checker to report the first.

Source: grammar and texts as observed on the service and as published with its client libraries.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple, NoReturn, cast

from datamodel.errors import ValidationError
from datamodel.expressions.reserved_words import is_reserved
from datamodel.expressions.syntax_tree import (
    Action,
    Alias,
    And,
    Between,
    Comparison,
    ComparisonOperator,
    ConditionTree,
    Function,
    In,
    Not,
    Operand,
    Or,
    Path,
    Value,
)
from datamodel.expressions.tokens import TokenType, syntax_error, tokenise
from datamodel.limits import EXPRESSION_SIZE_BYTES_MAX

_COMPARATORS: Final = frozenset(("=", "<>", "<", "<=", ">", ">="))
_LIST_INDEX_MAX: Final = 2**32 - 2
_TELLS_SIZE: Final = frozenset(("ConditionExpression", "FilterExpression"))

CONDITION_FUNCTIONS: Final = frozenset(
    ("attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains")
)
"""Functions that are conditions."""
UPDATE_FUNCTIONS: Final = frozenset(("if_not_exists", "list_append"))
FUNCTIONS: Final = CONDITION_FUNCTIONS | UPDATE_FUNCTIONS | {"size"}

REDUNDANT_PARENTHESES: Final = "The expression has redundant parentheses;"
MISPLACED: Final = "The function is not allowed to be used this way in an expression; function: "


class Fault(NamedTuple):
    """A fault in a well-formed expression; the one with the lowest position is the one to report."""

    section: int
    position: int
    text: str


@dataclass(slots=True)
class ParsedExpression:
    """What the parser found out.

    Attributes:
        condition: The tree of a condition, else None.
        actions: The actions of an update in the order of the text.
        paths: The paths of a projection.
        faults: Reserved words, unknown and misplaced functions, list indexes out of range, repeated sections.
        operator_count: Operators and function calls.
    """

    condition: ConditionTree | None = None
    actions: tuple[Action, ...] = ()
    paths: tuple[Path, ...] = ()
    faults: list[Fault] = field(default_factory=list)
    operator_count: int = 0


@dataclass(slots=True)
class Call:
    """An open function call, or the open list of IN (then `name` is empty and `operand` its left side)."""

    name: str
    position: int
    arguments: list[Operand] = field(default_factory=list)
    operand: Operand | None = None


@dataclass(slots=True)
class _Group:
    """Open parentheses, or the whole expression, where a condition may stand.

    Attributes:
        alternatives: Finished terms of OR.
        terms: Finished terms of the AND being read.
        negations: NOTs read before the condition that follows.
        left: The left operand of the comparison being read.
        operator: Its operator.
        low: The lower bound, once `BETWEEN low AND` has been read.
    """

    alternatives: list[ConditionTree] = field(default_factory=list)
    terms: list[ConditionTree] = field(default_factory=list)
    negations: int = 0
    left: Operand | None = None
    operator: str = ""
    low: Operand | None = None

    @property
    def is_bare(self) -> bool:
        """Nothing but one operand or one condition has been read since the parenthesis."""
        return not (self.alternatives or self.terms or self.negations or self.operator)


class OperandParenthesis:
    """Open parentheses where only an operand may stand."""

    __slots__ = ()


OPERAND_PARENTHESIS: Final = OperandParenthesis()


class Parser:
    """Reads one expression, or a part of one, from its tokens; the parts common to all kinds and conditions."""

    def __init__(self, kind: str, text: str) -> None:
        size = len(text) if text.isascii() else len(text.encode())
        if size > EXPRESSION_SIZE_BYTES_MAX:
            # Whether the size is told differs from member to member on the service.
            told = f" expression size: {size}" if kind in _TELLS_SIZE else ""
            raise ValidationError(
                f"Invalid {kind}: Expression size has exceeded the maximum allowed size;{told}"
            )
        self.kind = kind
        self.text = text
        self.tokens = tokenise(text)
        self.index = 0
        self.section = 0
        self.result = ParsedExpression()
        if len(self.tokens) == 1:
            raise ValidationError(f"Invalid {kind}: The expression can not be empty;")

    # --- tokens and faults

    def fail(self) -> NoReturn:
        """Raises the syntax error of the current token."""
        raise syntax_error(self.kind, self.text, self.tokens, self.index)

    def take(self, symbol: str) -> bool:
        """Goes past the current token if it is this symbol."""
        token = self.tokens[self.index]
        if token.text == symbol and token.type is TokenType.SYMBOL:
            self.index += 1
            return True
        return False

    def take_keyword(self, keyword: str) -> bool:
        """Goes past the current token if it is this keyword."""
        token = self.tokens[self.index]
        if token.text == keyword and token.type is TokenType.KEYWORD:
            self.index += 1
            return True
        return False

    def expect(self, symbol: str) -> None:
        """Goes past this symbol; any other token is a syntax error."""
        if not self.take(symbol):
            self.fail()

    def fault(self, position: int, text: str) -> None:
        """Notes a fault of a well-formed expression."""
        self.result.faults.append(Fault(self.section, position, text))

    def check_parentheses(self, redundant: bool) -> None:
        """Called when parentheses close around what has, or has not, got parentheses already."""
        if redundant:
            raise ValidationError(f"Invalid {self.kind}: {REDUNDANT_PARENTHESES}")

    # --- paths and functions

    def path_name(self) -> str:
        """Reads an attribute name or map key."""
        token = self.tokens[self.index]
        if token.type is TokenType.NAME:
            self.index += 1
            return Alias(token.text)
        if token.type is not TokenType.IDENTIFIER:
            self.fail()
        self.index += 1
        if is_reserved(token.text):
            self.fault(
                token.start,
                f"Attribute name is a reserved keyword; reserved keyword: {token.text}",
            )
        return token.text

    def path(self) -> Path:
        """Reads a document path; one that is no path is a syntax error."""
        elements: list[str | int] = [self.path_name()]
        while True:
            if self.take("."):
                elements.append(self.path_name())
            elif self.take("["):
                token = self.tokens[self.index]
                if token.type is not TokenType.INDEX:
                    self.fail()
                self.index += 1
                # Ten digits may be too large; the text of more must not even become a number.
                if len(token.text) > 10 or int(token.text) > _LIST_INDEX_MAX:
                    self.fault(
                        token.start,
                        f"List index is not within the allowable range; index: [{token.text}]",
                    )
                    elements.append(0)
                else:
                    elements.append(int(token.text))
                self.expect("]")
            else:
                return Path(tuple(elements))

    def is_call(self) -> bool:
        """Whether a function call begins here."""
        if self.tokens[self.index].type is not TokenType.IDENTIFIER:
            return False
        following = self.tokens[self.index + 1]
        return following.text == "(" and following.type is TokenType.SYMBOL

    def open_call(self) -> Call:
        """Reads the name of a function and the parenthesis behind it."""
        token = self.tokens[self.index]
        self.index += 2
        self.result.operator_count += 1
        return Call(token.text, token.start)

    # --- conditions

    def condition(self) -> ConditionTree:
        """Reads a whole condition. `frames` holds what is open; the last one is being read."""
        frames: list[_Group | Call | OperandParenthesis] = [_Group()]
        while True:
            # Here an operand or a condition begins.
            frame = frames[-1]
            in_group = isinstance(frame, _Group) and not frame.operator
            token = self.tokens[self.index]
            if in_group and self.take_keyword("NOT"):
                cast("_Group", frame).negations += 1
                self.result.operator_count += 1
                continue
            if self.take("("):
                frames.append(_Group() if in_group else OPERAND_PARENTHESIS)
                continue
            if self.is_call():
                frames.append(self.open_call())
                continue
            if token.type is TokenType.VALUE:
                self.index += 1
                operand: Operand = Value(token.text)
            else:
                operand = self.path()
            finished = self.after_operand(frames, operand, position=token.start)
            if finished is not None:
                return finished

    def after_operand(
        self,
        frames: list["_Group | Call | OperandParenthesis"],
        operand: Operand,
        position: int,
    ) -> ConditionTree | None:
        """Goes on behind an operand until another one must begin. Returns the tree at the end of the text.

        Args:
            frames: What is open.
            operand: The operand just read.
            position: Where it begins.
        """
        in_parentheses = False
        while True:
            frame = frames[-1]
            if isinstance(frame, Call):
                self.check_operand_function(operand, position)
                frame.arguments.append(operand)
                if self.take(","):
                    return None
                self.expect(")")
                frames.pop()
                in_parentheses = False
                if frame.operand is None:
                    operand, position = Function(frame.name, tuple(frame.arguments)), frame.position
                    continue
                group = cast("_Group", frames[-1])
                group.operator = ""
                tree = self.after_condition(frames, In(frame.operand, tuple(frame.arguments)))
            elif isinstance(frame, OperandParenthesis):
                self.expect(")")
                self.check_parentheses(in_parentheses)
                frames.pop()
                in_parentheses = True
                continue
            elif frame.operator:
                self.check_operand_function(operand, position)
                comparison = self.close_comparison(frame, operand)
                if comparison is None:
                    return None
                tree = self.after_condition(frames, comparison)
            elif self.open_comparison(frames, frame, operand, position):
                return None
            elif len(frames) > 1 and frame.is_bare and self.take(")"):
                self.check_parentheses(in_parentheses)
                frames.pop()
                in_parentheses = True
                continue
            elif isinstance(operand, Function):
                self.check_condition_function(operand, position)
                tree = self.after_condition(frames, operand, in_parentheses=in_parentheses)
            else:
                self.fail()
            return tree

    def open_comparison(
        self,
        frames: list["_Group | Call | OperandParenthesis"],
        group: _Group,
        operand: Operand,
        position: int,
    ) -> bool:
        """Reads a comparator, BETWEEN or IN behind its left operand, if there is one."""
        token = self.tokens[self.index]
        if token.type is TokenType.SYMBOL and token.text in _COMPARATORS:
            self.index += 1
        elif token.type is TokenType.KEYWORD and token.text in ("BETWEEN", "IN"):
            self.index += 1
            if token.text == "IN":
                self.expect("(")
                frames.append(Call("", position, operand=operand))
        else:
            return False
        self.check_operand_function(operand, position)
        self.result.operator_count += 1
        group.left = operand
        group.operator = token.text
        group.low = None
        return True

    def close_comparison(self, group: _Group, operand: Operand) -> ConditionTree | None:
        """The comparison that this right operand ends; None if it is only the lower bound."""
        left = group.left
        assert left is not None
        if group.operator != "BETWEEN":
            operator = cast("ComparisonOperator", group.operator)
            group.operator = ""
            return Comparison(operator, left, operand)
        if group.low is None:
            group.low = operand
            if not self.take_keyword("AND"):
                self.fail()
            return None
        group.operator = ""
        return Between(left, group.low, operand)

    def after_condition(
        self,
        frames: list["_Group | Call | OperandParenthesis"],
        tree: ConditionTree,
        in_parentheses: bool = False,
    ) -> ConditionTree | None:
        """Goes on behind a condition until something must begin. Returns the tree at the end of the text."""
        while True:
            group = cast("_Group", frames[-1])
            is_bare = group.is_bare
            for _ in range(group.negations):
                tree = Not(tree)
            group.negations = 0
            token = self.tokens[self.index]
            if self.take_keyword("AND"):
                self.result.operator_count += 1
                group.terms.append(tree)
                return None
            if group.terms:
                tree = And((*group.terms, tree))
                group.terms = []
            if self.take_keyword("OR"):
                self.result.operator_count += 1
                group.alternatives.append(tree)
                return None
            if group.alternatives:
                tree = Or((*group.alternatives, tree))
            if len(frames) == 1:
                if token.type is not TokenType.END:
                    self.fail()
                return tree
            self.expect(")")
            self.check_parentheses(in_parentheses and is_bare)
            frames.pop()
            in_parentheses = True

    def check_condition_function(self, function: Function, position: int) -> None:
        """Notes a function that cannot be a condition."""
        name = function.name
        if name not in FUNCTIONS:
            self.fault(position, f"Invalid function name; function: {name}")
        elif name in UPDATE_FUNCTIONS:
            self.fault(
                position,
                f"The function is not allowed in a condition expression; function: {name}",
            )
        elif name not in CONDITION_FUNCTIONS:
            self.fault(position, MISPLACED + name)

    def check_operand_function(self, operand: Operand, position: int) -> None:
        """Notes a function that cannot be an operand of a condition."""
        if not isinstance(operand, Function) or operand.name == "size":
            return
        if operand.name in CONDITION_FUNCTIONS:
            self.fault(position, MISPLACED + operand.name)
        else:
            self.check_condition_function(operand, position)

    # --- projections

    def projection(self) -> tuple[Path, ...]:
        """Reads a whole projection."""
        paths = [self.path()]
        while self.take(","):
            paths.append(self.path())
        if self.tokens[self.index].type is not TokenType.END:
            self.fail()
        return tuple(paths)


def parse_condition_text(kind: str, text: str) -> ParsedExpression:
    """Parse a condition, filter or key condition.

    Args:
        kind: Name of the request member, for errors.
        text: The expression.

    Raises:
        ValidationError: Empty, too long, malformed, or redundant parentheses.
    """
    parser = Parser(kind, text)
    parser.result.condition = parser.condition()
    return parser.result


def parse_projection_text(kind: str, text: str) -> ParsedExpression:
    """Parse a projection expression. Arguments and errors as of `parse_condition_text`."""
    parser = Parser(kind, text)
    parser.result.paths = parser.projection()
    return parser.result
