"""Tokens to syntax trees: the grammar of updates.

    update     = { SET path = set-value {, …} | REMOVE path {, …} | ADD path value {, …}
               | DELETE path value {, …} }, at least one section
    set-value  = operand | arithmetic
    arithmetic = operand + operand | operand - operand | ( arithmetic )

Paths, operands and functions are those of `parser.py`; nothing here recurses either.
"""

from dataclasses import dataclass
from typing import Final, cast

from datamodel.expressions.parser import (
    FUNCTIONS,
    MISPLACED,
    OPERAND_PARENTHESIS,
    UPDATE_FUNCTIONS,
    Call,
    OperandParenthesis,
    ParsedExpression,
    Parser,
)
from datamodel.expressions.syntax_tree import (
    Action,
    Arithmetic,
    ArithmeticOperator,
    Function,
    Operand,
    Section,
    Value,
)
from datamodel.expressions.tokens import TokenType

_SECTIONS: Final = ("SET", "REMOVE", "ADD", "DELETE")


@dataclass(slots=True)
class _ArithmeticParenthesis:
    """Open parentheses on the right side of SET, around an operand or around arithmetic."""

    left: Operand | None = None
    operator: str = ""


class _UpdateParser(Parser):
    """Reads an update."""

    def update(self) -> tuple[Action, ...]:
        actions: list[Action] = []
        seen: dict[str, int] = {}
        while True:
            token = self.tokens[self.index]
            if token.type is not TokenType.KEYWORD or token.text not in _SECTIONS:
                self.fail()
            self.index += 1
            # Faults are reported section by section, in the order in which the sections first appear.
            is_repeated = token.text in seen
            self.section = seen.setdefault(token.text, len(seen))
            if is_repeated:
                self.fault(
                    len(self.text),
                    f'The "{token.text}" section can only be used once in an update expression;',
                )
            section = cast("Section", token.text)
            actions.append(self.action(section))
            while self.take(","):
                actions.append(self.action(section))
            if self.tokens[self.index].type is TokenType.END:
                return tuple(actions)

    def action(self, section: Section) -> Action:
        path = self.path()
        if section == "REMOVE":
            return Action(section, path)
        if section == "SET":
            self.expect("=")
            return Action(section, path, self.set_value())
        token = self.tokens[self.index]
        if token.type is not TokenType.VALUE:
            self.fail()
        self.index += 1
        return Action(section, path, Value(token.text))

    def set_value(self) -> Operand | Arithmetic:
        """Reads the right side of SET; the first frame stands for the right side itself."""
        frames: list[_ArithmeticParenthesis | Call | OperandParenthesis] = [
            _ArithmeticParenthesis()
        ]
        while True:
            # Here an operand, or arithmetic in parentheses, begins.
            frame = frames[-1]
            token = self.tokens[self.index]
            if self.take("("):
                may_be_arithmetic = isinstance(frame, _ArithmeticParenthesis) and not frame.operator
                frames.append(
                    _ArithmeticParenthesis() if may_be_arithmetic else OPERAND_PARENTHESIS
                )
                continue
            if self.is_call():
                self.check_update_function(frames)
                frames.append(self.open_call())
                continue
            if token.type is TokenType.VALUE:
                self.index += 1
                operand: Operand = Value(token.text)
            else:
                operand = self.path()
            value = self.after_set_operand(frames, operand)
            if value is not None:
                return value

    def after_set_operand(
        self,
        frames: list["_ArithmeticParenthesis | Call | OperandParenthesis"],
        operand: Operand,
    ) -> Operand | Arithmetic | None:
        """Goes on behind an operand until another one must begin. Returns the finished right side."""
        value: Operand | Arithmetic = operand
        in_parentheses = False
        position = 0
        while True:
            frame = frames[-1]
            if isinstance(frame, Call):
                assert not isinstance(value, Arithmetic), "arithmetic cannot open inside a call"
                frame.arguments.append(value)
                if self.take(","):
                    return None
                self.expect(")")
                value, in_parentheses = Function(frame.name, tuple(frame.arguments)), False
                position = frame.position
                frames.pop()
                continue
            if isinstance(frame, _ArithmeticParenthesis):
                if frame.operator:
                    left = frame.left
                    assert left is not None
                    assert not isinstance(value, Arithmetic), "arithmetic is no operand"
                    value = Arithmetic(cast("ArithmeticOperator", frame.operator), left, value)
                    in_parentheses = False
                elif not isinstance(value, Arithmetic):
                    token = self.tokens[self.index]
                    if token.type is TokenType.SYMBOL and token.text in ("+", "-"):
                        self.index += 1
                        self.result.operator_count += 1
                        if isinstance(value, Function) and value.name == "list_append":
                            self.fault(position, MISPLACED + value.name)
                        frame.left, frame.operator = value, token.text
                        return None
                if len(frames) == 1:
                    return value
            self.expect(")")
            self.check_parentheses(in_parentheses)
            in_parentheses = True
            frames.pop()

    def check_update_function(
        self, frames: list["_ArithmeticParenthesis | Call | OperandParenthesis"]
    ) -> None:
        """Notes a function that cannot be called here in an update."""
        token = self.tokens[self.index]
        name = token.text
        if name not in FUNCTIONS:
            self.fault(token.start, f"Invalid function name; function: {name}")
        elif name not in UPDATE_FUNCTIONS:
            self.fault(
                token.start,
                f"The function is not allowed in an update expression; function: {name}",
            )
        elif name == "list_append" and any(
            isinstance(frame, Call)
            or (isinstance(frame, _ArithmeticParenthesis) and frame.operator)
            for frame in frames
        ):
            # It may only be the whole right side; if_not_exists may be an operand of anything.
            self.fault(token.start, MISPLACED + name)


def parse_update_text(kind: str, text: str) -> ParsedExpression:
    """Parse an update expression. Arguments and errors as of `parser.parse_condition_text`."""
    parser = _UpdateParser(kind, text)
    parser.result.actions = parser.update()
    return parser.result
