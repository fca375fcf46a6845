"""Conditions in the words of LanceDB's SQL."""

from __future__ import annotations

from n2kit.contract import AllOf, AnyOf, Comparison, Condition, Negation


def sql(condition: Condition) -> str:
    """Write a condition. A row without a value satisfies no comparison, and not NULL as in SQL: so its negation holds."""
    match condition:
        case Negation(of):
            return f"NOT ({sql(of)})"
        case AllOf(several):
            return " AND ".join(f"({sql(one)})" for one in several)
        case AnyOf(several):
            return one_of(several) or " OR ".join(f"({sql(one)})" for one in several)
    there = f"{name(condition.field)} IS NOT NULL"
    if isinstance(condition.value, str):
        there += f" AND {name(condition.field)} != ''"
    return f"({there} AND {name(condition.field)} {condition.sign} {literal(condition.value)})"


def one_of(several: tuple[Condition, ...]) -> str | None:
    """Write equalities of one field of texts as one list: thousands in each other overflow the parser's stack."""
    plain = [one for one in several if isinstance(one, Comparison) and one.sign == "=" and isinstance(one.value, str)]
    if len(plain) < len(several) or len({one.field for one in plain}) != 1:
        return None
    field, values = name(plain[0].field), ", ".join(literal(one.value) for one in plain if one.value != "")
    return f"({field} IS NOT NULL AND {field} IN ({values}))" if values else "false"


def name(field: str) -> str:
    return f"`{field}`"


def literal(value: str | float) -> str:
    return repr(float(value)) if not isinstance(value, str) else "'" + value.replace("'", "''") + "'"
