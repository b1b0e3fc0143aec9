"""Changing a constant of train.py the way an agent does: one name, one value, one line; everything else stays as it was.

A constant is a column-0 line `NAME = value  # comment` whose value is a number, or `number if CPU else number`, where the
arm of the lab's profile is the one that counts. Anything else (computed values, names bound twice) is not offered.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass

_ASSIGNMENT = re.compile(r"^(?P<name>[A-Z][A-Z0-9_]*) = (?P<value>[^#\n]*[^#\s])", re.MULTILINE)
_PROFILE_FLAG = "CPU"

Number = int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A number in the source of train.py: ``source[start:stop]`` is its text."""

    name: str
    value: Number
    start: int
    stop: int


def read_constants(source: str, profile: str) -> dict[str, Constant]:
    """Return the constants of ``source`` that a value can be put in place of, by name, as they count on ``profile``."""
    matches = list(_ASSIGNMENT.finditer(source))
    bound = Counter(match["name"] for match in matches)
    found = {}
    for match in matches:
        arm = _arm(match["value"], profile)
        if arm is None or bound[match["name"]] > 1:
            continue
        value, first, last = arm
        offset = match.start("value")
        found[match["name"]] = Constant(name=match["name"], value=value, start=offset + first, stop=offset + last)
    return found


def replace_constants(source: str, changes: dict[Constant, Number]) -> str:
    """Return ``source`` with new values in place of some constants that were read from it."""
    for constant in sorted(changes, key=lambda constant: constant.start, reverse=True):
        source = source[: constant.start] + literal(changes[constant]) + source[constant.stop :]
    return source


def literal(value: Number) -> str:
    """Return a number as train.py and descriptions write it: whole numbers in full, others to three digits."""
    if isinstance(value, int):
        return str(value)
    text = f"{value:.3g}"
    return text if any(mark in text for mark in ".en") else f"{text}.0"


def _arm(text: str, profile: str) -> tuple[Number, int, int] | None:
    """Return the number that counts on ``profile`` in an expression, and where its text starts and stops."""
    try:
        expression: ast.expr = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
    if isinstance(expression, ast.IfExp):
        if not (isinstance(expression.test, ast.Name) and expression.test.id == _PROFILE_FLAG):
            return None
        expression = expression.body if profile == "cpu" else expression.orelse
    value = _number(expression)
    if value is None or not text.isascii() or expression.end_col_offset is None:  # columns are counted in bytes
        return None
    return value, expression.col_offset, expression.end_col_offset


def _number(expression: ast.expr) -> Number | None:
    match expression:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.BinOp(left=ast.Constant(value=int() as base), op=ast.Pow(), right=ast.Constant(value=int() as exponent)):
            return base**exponent if 0 <= exponent <= 64 else None
        case _:
            return None
