"""Tokens to syntax trees, by operator precedence.

    statement  = expression [;]
    select     = SELECT (* | expression {, expression}) FROM source [WHERE expression]
                 [GROUP BY …] [HAVING …] [ORDER BY expression [ASC | DESC] {, …}] [LIMIT expression]
    update     = UPDATE path change {change} [WHERE expression] [RETURNING …]
               | FROM source [WHERE expression] change {change} [RETURNING …]
    change     = SET path = expression {, path = expression} | REMOVE path
    insert     = INSERT INTO path (VALUE expression | expression) [RETURNING …]
    delete     = DELETE FROM path [WHERE expression] [RETURNING …]
    RETURNING  = RETURNING (ALL | MODIFIED) (OLD | NEW) *

A statement is an expression like any other here, and so `x` is well formed: what is no statement of the service
is refused later, in other words. A syntax error says what was expected where the text could not go on; the
service's parser works in the same order, and its words are the ones to repeat.

What nests (parentheses, literals, calls, NOT, statements in statements) is bounded by `NESTING_MAX`, so no text
can exhaust the stack.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NoReturn

from datamodel.partiql.syntax import (
    Assignment,
    BagLiteral,
    Call,
    DateLiteral,
    DeleteStatement,
    Expression,
    InsertStatement,
    ListLiteral,
    Name,
    Operation,
    OrderTerm,
    Parameter,
    PathExpression,
    Scalar,
    SelectStatement,
    Step,
    StructLiteral,
    UnsupportedClause,
    UpdateStatement,
    Wildcard,
)
from datamodel.partiql.tokens import Token, TokenType, not_well_formed, tokenise

NESTING_MAX: Final = 64
"""Levels of nesting in a statement; attribute values have at most 32."""

STATEMENTS_REMEMBERED_MAX: Final = 512
"""Parsed statements remembered, the least recently used forgotten first."""
REMEMBERED_LENGTH_MAX: Final = 1024
"""Characters of a statement beyond which it is not remembered: its tree may take a megabyte."""

_PRECEDENCE: Final = {
    "intersect": 5,
    "except": 5,
    "union": 5,
    "or": 10,
    "and": 20,
    "not": 30,
    "=": 40,
    "<>": 40,
    "is": 40,
    "is not": 40,
    "in": 40,
    "not in": 40,
    "<": 50,
    "<=": 50,
    ">": 50,
    ">=": 50,
    "between": 50,
    "not between": 50,
    "like": 50,
    "not like": 50,
    "+": 60,
    "-": 60,
    "||": 60,
    "*": 70,
    "/": 70,
    "%": 70,
}
_NEGATED: Final = {
    "is not": "is",
    "not in": "in",
    "not between": "between",
    "not like": "like",
}
_TYPE_NAMES: Final = frozenset(
    """
    missing null bool boolean smallint int integer int4 int8 float real dec decimal numeric timestamp date time
    char character varchar string symbol clob blob struct tuple list sexp bag
    """.split()  # noqa: SIM905 - words read better as text
) | {"double precision", "character varying"}
# Keywords that are called like functions.
_FUNCTION_KEYWORDS: Final = frozenset(
    """
    exists count avg max min sum char_length character_length octet_length bit_length upper lower size nullif
    coalesce sexp list bag
    """.split()  # noqa: SIM905 - words read better as text
)
_JOIN_WORDS: Final = frozenset(("join", "inner", "left", "right", "full", "outer", "cross"))
_RETURNED: Final = frozenset(("all old", "all new", "modified old", "modified new"))
_SCALARS: Final = {
    TokenType.STRING: "S",
    TokenType.NUMBER: "N",
    TokenType.BOOLEAN: "BOOL",
    TokenType.NULL: "NULL",
    TokenType.MISSING: "MISSING",
}


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = tokenise(text)
        self.index = 0
        self.depth = 0
        self.parameters = 0

    # --- tokens

    @property
    def token(self) -> Token:
        return self.tokens[self.index]

    def fail(self, detail: str) -> NoReturn:
        raise not_well_formed(detail)

    def next(self) -> Token:
        token = self.tokens[self.index]
        self.index += 1
        return token

    def is_keyword(self, *words: str) -> bool:
        return self.token.type is TokenType.KEYWORD and self.token.text in words

    def take_keyword(self, *words: str) -> bool:
        if self.is_keyword(*words):
            self.index += 1
            return True
        return False

    def take(self, kind: TokenType) -> bool:
        if self.token.type is kind:
            self.index += 1
            return True
        return False

    def expect(self, kind: TokenType) -> None:
        if not self.take(kind):
            self.fail(f"Expected {kind.value}")

    def expect_word(self, word: str) -> None:
        if self.token.text != word or self.token.type not in (
            TokenType.KEYWORD,
            TokenType.OPERATOR,
        ):
            self.fail(f"Expected keyword {word.upper()}")
        self.index += 1

    # --- expressions

    def statement(self) -> Expression:
        expression = self.expression()
        self.take(TokenType.SEMICOLON)
        if self.token.type is not TokenType.END:
            self.fail("Unexpected token after expression")
        return expression

    def expression(self, precedence: int = 0) -> Expression:
        """Reads as much as operators of a higher precedence hold together."""
        self.depth += 1
        if self.depth > NESTING_MAX:
            self.fail("Nesting is too deep")
        left = self.unary()
        while True:
            token = self.token
            if token.type not in (TokenType.OPERATOR, TokenType.STAR):
                break
            binding = _PRECEDENCE.get(token.text, 0)
            if token.text == "not" or binding <= precedence:
                break
            left = self.infix(left, token, binding)
        self.depth -= 1
        return left

    def infix(self, left: Expression, token: Token, binding: int) -> Expression:
        operator = _NEGATED.get(token.text, token.text)
        operation: Expression
        if operator == "is":
            self.index += 1
            operation = Operation("is", (left,), token.at, self.type_name())
        elif operator == "in" and self.opens_list(self.index + 1):
            self.index += 2
            elements = self.comma_list(self.expression)
            self.expect(TokenType.RIGHT_PAREN)
            operation = Operation("in", (left, ListLiteral(elements, token.at)), token.at)
        else:
            if self.tokens[self.index + 1].type is TokenType.END:
                self.fail("Missing right-hand side expression of infix operator")
            self.index += 1
            right = self.expression(binding)
            operands: tuple[Expression, ...] = (left, right)
            if operator == "between":
                self.expect_word("and")
                if self.token.type is TokenType.END:
                    self.fail("Expected expression after AND")
                operands = (*operands, self.expression(binding))
            elif operator == "like" and self.take_keyword("escape"):
                operands = (*operands, self.expression(binding))
            elif (
                operator in ("and", "or")
                and isinstance(left, Operation)
                and left.operator == operator
            ):
                return Operation(operator, (*left.operands, right), left.at)
            operation = Operation(operator, operands, token.at)
        if operator != token.text:
            operation = Operation("not", (operation,), token.at)
        return operation

    def opens_list(self, index: int) -> bool:
        if self.tokens[index].type is not TokenType.LEFT_PAREN:
            return False
        inner = self.tokens[index + 1]
        return not (inner.type is TokenType.KEYWORD and inner.text in ("select", "values"))

    def type_name(self) -> str:
        token = self.token
        if token.text not in _TYPE_NAMES or token.type not in (
            TokenType.KEYWORD,
            TokenType.NULL,
            TokenType.MISSING,
        ):
            self.fail("Expected type name")
        self.index += 1
        if self.take(TokenType.LEFT_PAREN):
            self.comma_list(self.expression)
            self.expect(TokenType.RIGHT_PAREN)
        return token.text

    def unary(self) -> Expression:
        token = self.token
        if token.type is not TokenType.OPERATOR or token.text not in ("+", "-", "not"):
            return self.path_term()
        self.index += 1
        if token.text == "not":
            return Operation("not", (self.expression(_PRECEDENCE["not"]),), token.at)
        self.depth += 1
        if self.depth > NESTING_MAX:
            self.fail("Nesting is too deep")
        operand = self.unary()
        self.depth -= 1
        if isinstance(operand, Scalar) and operand.kind == "N":
            text = operand.text
            if token.text == "-":
                text = text[1:] if text.startswith("-") else "-" + text
            return Scalar("N", text, token.at)
        return Operation("pos" if token.text == "+" else "neg", (operand,), token.at)

    def path_term(self) -> Expression:
        return self.steps(self.term())

    def simple_path(self) -> Expression:
        """Reads a path of names and literal indexes: what can be changed, or is a table."""
        token = self.token
        if token.type not in (TokenType.IDENTIFIER, TokenType.QUOTED):
            self.fail("Expected identifier for simple path")
        self.index += 1
        return self.steps(Name(token.text, token.at), simple=True)

    def steps(self, root: Expression, *, simple: bool = False) -> Expression:
        steps: list[Step] = []
        while True:
            token = self.token
            if token.type is TokenType.DOT:
                self.index += 1
                token = self.token
                if token.type in (TokenType.IDENTIFIER, TokenType.QUOTED):
                    steps.append(token.text)
                elif token.type is TokenType.STAR:
                    if simple:
                        self.fail("Invalid path dot component for simple path")
                    steps.append(Wildcard(token.at))
                else:
                    self.fail("Invalid path dot component")
                self.index += 1
            elif token.type is TokenType.LEFT_BRACKET:
                self.index += 1
                if self.token.type is TokenType.STAR:
                    steps.append(Wildcard(self.next().at))
                else:
                    step = self.expression()
                    if simple and not isinstance(step, Scalar):
                        self.fail("Invalid path component for simple path")
                    # In a tree a str is a name after a dot; what is in brackets stays an expression.
                    steps.append(step)
                self.expect(TokenType.RIGHT_BRACKET)
            elif steps:
                return PathExpression(root, tuple(steps), root.at)
            else:
                return root

    def term(self) -> Expression:
        token = self.token
        scalar = _SCALARS.get(token.type)
        if scalar is not None:
            self.index += 1
            return Scalar(scalar, token.text, token.at)  # type: ignore[arg-type]
        match token.type:
            case TokenType.IDENTIFIER | TokenType.QUOTED:
                self.index += 1
                if self.take(TokenType.LEFT_PAREN):
                    return self.call(token)
                return Name(token.text, token.at)
            case TokenType.PARAMETER:
                self.index += 1
                self.parameters += 1
                return Parameter(self.parameters - 1, token.at)
            case TokenType.KEYWORD:
                return self.keyword_term(token)
            case TokenType.LEFT_PAREN:
                self.index += 1
                elements = self.comma_list(self.expression)
                self.expect(TokenType.RIGHT_PAREN)
                return elements[0] if len(elements) == 1 else ListLiteral(elements, token.at)
            case TokenType.LEFT_BRACKET:
                return ListLiteral(self.literal_elements(TokenType.RIGHT_BRACKET), token.at)
            case TokenType.LEFT_BAG:
                return BagLiteral(self.literal_elements(TokenType.RIGHT_BAG), token.at)
            case TokenType.LEFT_CURLY:
                return self.struct(token)
            case TokenType.OPERATOR:
                return self.fail("Unexpected operator")
            case _:
                return self.fail("Unexpected term")

    def literal_elements(self, end: TokenType) -> tuple[Expression, ...]:
        self.index += 1
        if self.take(end):
            return ()
        elements = self.comma_list(self.expression)
        self.expect(end)
        return elements

    def struct(self, token: Token) -> Expression:
        self.index += 1
        if self.take(TokenType.RIGHT_CURLY):
            return StructLiteral((), token.at)
        fields: list[tuple[Expression, Expression]] = []
        while True:
            key = self.expression()
            self.expect(TokenType.COLON)
            fields.append((key, self.expression()))
            if not self.take(TokenType.COMMA):
                break
        self.expect(TokenType.RIGHT_CURLY)
        return StructLiteral(tuple(fields), token.at)

    def call(self, name: Token) -> Expression:
        """Reads the arguments of a call; the parenthesis has been read."""
        if self.take(TokenType.RIGHT_PAREN):
            return Call(name.text.lower(), (), name.at)
        if self.token.type is TokenType.STAR:
            if name.text.lower() != "count":
                self.fail(f"{name.text}(*) is not allowed")
            self.index += 1
            arguments: tuple[Expression, ...] = ()
        else:
            self.take_keyword("distinct", "all")
            arguments = self.comma_list(self.expression)
        self.expect(TokenType.RIGHT_PAREN)
        return Call(name.text.lower(), arguments, name.at)

    def comma_list(self, item: Callable[[], Expression]) -> tuple[Expression, ...]:
        items = [item()]
        while self.take(TokenType.COMMA):
            items.append(item())
        return tuple(items)

    def keyword_term(self, token: Token) -> Expression:
        match token.text:
            case "select":
                return self.select()
            case "update":
                return self.update()
            case "delete":
                return self.delete()
            case "from":
                return self.from_first()
            case "insert into":
                return self.insert()
            case "set" | "remove":
                assignments = self.changes()
                return UpdateStatement((), assignments, None, "", has_alias=False, at=token.at)
            case _:
                return self.keyword_call(token)

    def keyword_call(self, token: Token) -> Expression:
        if token.text in _FUNCTION_KEYWORDS:
            self.index += 1
            if self.take(TokenType.LEFT_PAREN):
                return self.call(token)
        elif token.text == "date" and self.tokens[self.index + 1].type is TokenType.STRING:
            self.index += 2
            return DateLiteral(token.at)
        return self.fail("Unexpected keyword")

    # --- statements

    def alias(self) -> bool:
        """Reads an alias, if there is one."""
        found = False
        while self.take_keyword("as", "at", "by"):
            if self.token.type not in (TokenType.IDENTIFIER, TokenType.QUOTED):
                self.fail("Expected identifier for alias")
            self.index += 1
            found = True
        if not found and self.token.type in (TokenType.IDENTIFIER, TokenType.QUOTED):
            self.index += 1
            found = True
        return found

    def where(self) -> Expression | None:
        return self.expression() if self.take_keyword("where") else None

    def returning(self) -> str:
        if not self.take_keyword("returning"):
            return ""
        token = self.token
        if token.type is not TokenType.KEYWORD or token.text not in _RETURNED:
            self.fail("Expected ( MODIFIED | ALL ) ( NEW | OLD ) in a returning element.")
        self.index += 1
        self.expect(TokenType.STAR)
        return token.text

    def sources(self) -> tuple[tuple[Expression, ...], bool]:
        """Reads what follows FROM: the sources, and whether one has an alias."""
        sources = [self.expression()]
        has_alias = self.alias()
        while True:
            if self.is_keyword(*_JOIN_WORDS):
                while self.take_keyword(*_JOIN_WORDS):
                    pass
            elif not self.take(TokenType.COMMA):
                return tuple(sources), has_alias
            sources.append(self.expression())
            has_alias = self.alias() or has_alias
            if self.take_keyword("on"):
                self.expression()

    def select(self) -> Expression:
        at = self.next().at
        unsupported: UnsupportedClause | None = None
        if self.is_keyword("distinct"):
            unsupported = UnsupportedClause("DISTINCT", self.next().at)
        else:
            self.take_keyword("all")
        has_alias = False
        items: tuple[Expression, ...] | None
        if self.is_keyword("value"):
            unsupported = unsupported or UnsupportedClause("SELECT VALUE", self.next().at)
            items = (self.expression(),)
        else:
            items, has_alias = self.select_list()
        if not self.take_keyword("from"):
            self.fail("Expected FROM after SELECT list")
        sources, source_alias = self.sources()
        where = self.where()
        order_by: tuple[OrderTerm, ...] = ()
        while self.is_keyword("group", "having", "limit", "order by"):
            clause = self.next()
            if clause.text == "order by":
                if order_by:
                    self.fail("Unexpected token after expression")
                order_by = self.order_terms()
                continue
            at_clause = clause.at
            if clause.text == "group":
                self.take_keyword("partial")
                self.expect_word("by")
                self.comma_list(self.expression)
            else:
                at_clause = self.expression().at
            unsupported = unsupported or UnsupportedClause(clause.text.upper(), at_clause)
        return SelectStatement(
            items, sources, where, order_by, has_alias or source_alias, unsupported, at
        )

    def select_list(self) -> tuple[tuple[Expression, ...] | None, bool]:
        items: list[Expression] = []
        has_star = has_alias = False
        while True:
            if self.take(TokenType.STAR):
                has_star = True
            else:
                items.append(self.expression())
                has_alias = self.alias() or has_alias
            if not self.take(TokenType.COMMA):
                break
        if has_star and items:
            self.fail(
                "Other expressions may not be present in the select list when '*' is used "
                "without dot notation."
            )
        return None if has_star else tuple(items), has_alias

    def order_terms(self) -> tuple[OrderTerm, ...]:
        terms = []
        while True:
            expression = self.expression()
            descending = self.take_keyword("desc")
            if not descending:
                self.take_keyword("asc")
            terms.append(OrderTerm(expression, descending))
            if not self.take(TokenType.COMMA):
                return tuple(terms)

    def changes(self) -> tuple[Assignment, ...]:
        """Reads SET and REMOVE clauses, at least one."""
        if not self.is_keyword("set", "remove"):
            self.fail("Expected data manipulation")
        assignments: list[Assignment] = []
        while self.is_keyword("set", "remove"):
            if self.next().text == "remove":
                assignments.append(Assignment(self.simple_path(), None))
                continue
            while True:
                target = self.simple_path()
                if self.token.text != "=" or self.token.type is not TokenType.OPERATOR:
                    self.fail("Expected '='")
                self.index += 1
                assignments.append(Assignment(target, self.expression()))
                if not self.take(TokenType.COMMA):
                    break
        return tuple(assignments)

    def update(self) -> Expression:
        at = self.next().at
        target = self.simple_path()
        has_alias = self.alias()
        assignments = self.changes()
        where = self.where()
        return UpdateStatement((target,), assignments, where, self.returning(), has_alias, at)

    def from_first(self) -> Expression:
        at = self.next().at
        sources, has_alias = self.sources()
        where = self.where()
        assignments = self.changes()
        return UpdateStatement(sources, assignments, where, self.returning(), has_alias, at)

    def insert(self) -> Expression:
        at = self.next().at
        target = self.simple_path()
        is_bag = not self.take_keyword("value")
        value = self.expression()
        return InsertStatement(target, value, is_bag, self.returning(), at)

    def delete(self) -> Expression:
        at = self.next().at
        if not self.take_keyword("from"):
            self.fail("Expected FROM after DELETE")
        target = self.simple_path()
        has_alias = self.alias()
        where = self.where()
        return DeleteStatement(target, where, self.returning(), has_alias, at)


def _parse(text: str) -> tuple[Expression, int]:
    parser = _Parser(text)
    return parser.statement(), parser.parameters


_remembered = lru_cache(STATEMENTS_REMEMBERED_MAX)(_parse)


def parse_statement(text: str) -> tuple[Expression, int]:
    """Parse a statement.

    Args:
        text: At most 8192 characters.

    Returns:
        The tree, which may be an expression that is no statement, and the number of its parameters.

    Raises:
        ValidationError: It is not well formed.
    """
    return _remembered(text) if len(text) <= REMEMBERED_LENGTH_MAX else _parse(text)
