"""Conditions in Milvus's words."""

from __future__ import annotations

from collections.abc import Sequence

from n2kit.contract import AllOf, AnyOf, Comparison, Condition, Negation

ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def expression(condition: Condition) -> str:
    """Write a condition on dynamic fields. A row without a value satisfies no comparison, so its negation holds."""
    match condition:
        case Negation(of):
            return f"not ({expression(of)})"
        case AllOf(several):
            return " and ".join(f"({expression(one)})" for one in several)
        case AnyOf(several):
            return _one_of(several) or " or ".join(f"({expression(one)})" for one in several)
    there = f"exists {condition.field}"
    if isinstance(condition.value, str):
        there += f' and {condition.field} != ""'
    sign = "==" if condition.sign == "=" else condition.sign
    return f"({there} and {condition.field} {sign} {_literal(condition.value)})"


def _one_of(several: tuple[Condition, ...]) -> str | None:
    """Write equalities of one field as one list: thousands in each other are too deep."""
    plain = [one for one in several if isinstance(one, Comparison) and one.sign == "="]
    if len(plain) < len(several) or len({one.field for one in plain}) != 1:
        return None
    field, values = plain[0].field, ", ".join(_literal(one.value) for one in plain if one.value != "")
    return f"(exists {field} and {field} in [{values}])" if values else 'id == ""'


def among(ids: Sequence[str]) -> str:
    """Write the condition that an id is one of these. Milvus's own client puts ids into a condition as they are, quotes too."""
    return f"id in [{', '.join(map(_literal, ids))}]"


def after(item_id: str) -> str:
    """Write the condition that an id comes behind another."""
    return f"id > {_literal(item_id)}"


def _literal(value: str | float) -> str:
    return repr(float(value)) if not isinstance(value, str) else f'"{value.translate(ESCAPED)}"'
