"""Conditions on items, such as `category = 'chairs' and price < 20`: parsed here, and nothing of them is ever executed."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from n2kit.contract.store import ID, AllOf, AnyOf, Comparison, Condition, Negation, Sign
from n2kit.errors import BadInput, suggest
from n2kit.index.facts import Facts
from n2kit.index.where_hints import column_name, example, why_texts

DEEPEST = 50  # parentheses in each other
_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>{_NUMBER})|'(?P<text>(?:[^']|'')*)'|\"(?P<quoted>[^\"]+)\"|(?P<word>[^\W\d][\w.]*)"
    r"|(?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,))"
)
_SIGNS: dict[str, Sign] = {"==": "=", "<>": "!=", "=": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_COMPARE: dict[Sign, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
Columns = Mapping[str, np.ndarray]  # texts, or numbers with NaN where there is none


@dataclass(frozen=True)
class Token:
    kind: str
    value: Any
    place: int


def parse(condition: str, columns: Columns, fields: Mapping[str, str] | None = None) -> Condition:
    """Read a condition on columns of these names and types.

    It knows `=`, `!=`, `<`, `<=`, `>`, `>=`, `in (…)`, `not`, `and`, `or`, parentheses, texts in single quotes, numbers, and
    columns by their names, in double quotes where a name has spaces. fields: as of `Facts`; a field's name, or a synonym, is its column.

    Raises:
        BadInput: it is none, with its place; a column that is not there; a text compared with a number.
    """
    return _Parser(condition, columns, fields or {}).parse()


def holds(condition: Condition, columns: Columns) -> np.ndarray:
    """Evaluate a condition on columns [n]: true where it holds, [n]. An item that lacks a value satisfies no comparison with it."""
    found: np.ndarray
    match condition:
        case Negation(of):
            found = ~holds(of, columns)
        case AllOf(several):
            found = np.logical_and.reduce([holds(one, columns) for one in several])
        case AnyOf(several):
            found = np.logical_or.reduce([holds(one, columns) for one in several])
        case Comparison(name, sign, value):
            column = columns[name]
            there = ~np.isnan(column) if is_numeric(column) else column != ""
            found = _COMPARE[sign](column, value) & there
    return found


def is_numeric(column: np.ndarray) -> bool:
    return column.dtype.kind == "f"


class _Parser:
    def __init__(self, condition: str, columns: Columns, fields: Mapping[str, str]) -> None:
        self.condition, self.columns = condition, columns
        self.facts = Facts([], dict(columns), fields)
        self.tokens, self.at, self.depth = list(self._tokens()), 0, 0

    def parse(self) -> Condition:
        found = self._either()
        if self._peek().kind != "end":
            raise self._problem(f"{self._peek().value!r} is not expected")
        return found

    def _either(self) -> Condition:
        found = [self._both()]
        while self._word("or"):
            found.append(self._both())
        return found[0] if len(found) == 1 else AnyOf(tuple(found))

    def _both(self) -> Condition:
        found = [self._one()]
        while self._word("and"):
            found.append(self._one())
        return found[0] if len(found) == 1 else AllOf(tuple(found))

    def _one(self) -> Condition:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._problem("nested too deep")
        found: Condition
        if self._word("not"):
            found = Negation(self._one())
        elif self._sign("("):
            found = self._either()
            self._expect(")")
        else:
            found = self._comparison()
        self.depth -= 1
        return found

    def _comparison(self) -> Condition:
        token = self._next()
        if token.kind not in ("word", "quoted"):
            raise self._problem("a column is expected", token)
        name = self._column(token)
        negated = self._word("not")
        if self._word("in"):
            self._expect("(")
            found = [self._compared(name, "=", self._next())]
            while self._sign(","):
                found.append(self._compared(name, "=", self._next()))
            self._expect(")")
            of: Condition = found[0] if len(found) == 1 else AnyOf(tuple(found))
            return Negation(of) if negated else of
        sign = self._next()
        if negated or sign.value not in _SIGNS or sign.kind != "sign":
            raise self._problem("=, !=, <, <=, >, >= or in (…) is expected", sign)
        return self._compared(name, _SIGNS[sign.value], self._next())

    def _compared(self, name: str, sign: Sign, value: Token) -> Comparison:
        if value.kind not in ("text", "number"):
            raise self._problem("a number, or a text in single quotes, is expected", value)
        numeric = is_numeric(self.columns[name])
        if numeric != (value.kind == "number"):
            what = "numbers, and it is compared with a text" if numeric else "texts, and it is compared with a number"
            hint = None if numeric else why_texts(name, self.columns[name])
            if numeric and re.fullmatch(_NUMBER, value.value.strip()):
                hint = f"a number has no quotes: {column_name(name)} {sign} {value.value.strip()}"
            raise self._problem(f"column {name} holds {what}", value, hint)
        return Comparison(name, sign, value.value)

    def _column(self, token: Token) -> str:
        if token.value in self.columns:
            return str(token.value)
        if (field := self.facts.field_of(token.value)) is not None:  # sku is id, and category a column product_type
            column = ID if field == ID else self.facts.column_for(field)
            if column in self.columns:
                return str(column)
        hint = suggest(token.value, self.columns) or f"columns: {', '.join(self.columns) or 'none'}"
        raise BadInput(f"--where: no column {token.value}", hint)

    def _tokens(self) -> Any:
        at = 0
        text = self.condition.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise BadInput(f"--where: {text[at:].lstrip()[:20]!r} is not understood", example(self.columns))
            kind = str(found.lastgroup)
            value: Any = found[kind]
            if kind == "number":
                value = float(value)
            elif kind == "text":
                value = value.replace("''", "'")
            yield Token(kind, value, found.start())
            at = found.end()
        yield Token("end", "the end", len(text))

    def _peek(self) -> Token:
        return self.tokens[self.at]  # type: ignore[no-any-return]

    def _next(self) -> Token:
        token = self._peek()
        self.at += token.kind != "end"
        return token

    def _word(self, word: str) -> bool:
        token = self._peek()
        found = token.kind == "word" and token.value.lower() == word
        self.at += found
        return found

    def _sign(self, sign: str) -> bool:
        token = self._peek()
        found = token.kind == "sign" and token.value == sign
        self.at += found
        return found

    def _expect(self, sign: str) -> None:
        if not self._sign(sign):
            raise self._problem(f"{sign} is expected")

    def _problem(self, what: str, token: Token | None = None, hint: str | None = None) -> BadInput:
        at = self.condition[(token or self._peek()).place :].strip()[:20] or "its end"
        return BadInput(f"--where, at {at!r}: {what}", hint or example(self.columns))
