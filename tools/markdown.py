"""Small pieces of Markdown that any renderer shows alike, for texts that strangers wrote.

Guarantees: a description, a note or a log cannot leave its place: no line, table cell, code fence, link, image or HTML tag of
theirs takes effect, and no control character is passed on. Does not: judge what the text says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .describe import clean, shorten

_SPECIAL = re.compile(r"([\\`*\[<|])")
_FIRST = re.compile(r"^([#>+=~_-]|\d+(?=[.)](?:\s|$)))")
_BACKTICKS = re.compile(r"`+")


def plain(text: str, limit_bytes: int = 2_000) -> str:
    """Return text on one line, cut to ``limit_bytes`` before what Markdown would act on is escaped."""
    escaped = _SPECIAL.sub(r"\\\1", shorten(text, limit_bytes))
    return _FIRST.sub(lambda match: f"{match[1]}\\" if match[1].isdigit() else f"\\{match[1]}", escaped)


def fenced(text: str, language: str = "") -> str:
    """Return text as a code block; the fence is longer than every row of backticks inside."""
    body = clean(text).rstrip("\n")
    longest = max((len(run) for run in _BACKTICKS.findall(body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{body}\n{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are Markdown already, without line breaks."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def bars(rows: Sequence[tuple[str, float, str]], width: int = 40) -> str:
    """Return a chart of (label, value, words) as lines of "#": the lowest value has one, the highest ``width``."""
    low, high = min(value for _, value, _ in rows), max(value for _, value, _ in rows)
    lines = []
    for label, value, words in rows:
        share = (value - low) / (high - low) if high > low else 1.0
        lines.append(f"{label}  {value:.4f}  {'#' * (1 + round(share * (width - 1)))}{f'  {words}' if words else ''}")
    return "\n".join(lines)
