"""Pieces of HTML for texts that strangers wrote, and the frame of a page that stands alone.

Guarantees: whatever is no `Markup` is escaped where it becomes a part of it, and loses its control characters, so no text can
leave its place; a page loads nothing, runs nothing and sends nothing, which its Content-Security-Policy says to the browser,
too: one stylesheet, named by its hash, and pictures that are in the page. Does not: know what a page is about.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence

from ..tools.describe import clean

_EMPTY = frozenset({"img", "meta"})


class Markup(str):
    """HTML that was made here."""

    __slots__ = ()


def element(name: str, *children: str, **attributes: str) -> Markup:
    """Return an element; ``class_`` is the attribute "class"."""
    given = "".join(f' {key.rstrip("_")}="{escaped(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>" if name in _EMPTY else f"<{name}{given}>{together(*children)}</{name}>")


def together(*parts: str) -> Markup:
    """Return parts one after the other, in no element of their own."""
    return Markup("".join(part if isinstance(part, Markup) else escaped(part) for part in parts))


def escaped(text: str) -> Markup:
    """Return text that means itself, as content and as an attribute."""
    return Markup(html.escape(clean(text)))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[int] = ()) -> Markup:
    """Return a table that scrolls sideways where it is too wide; the columns ``words``, from 0, hold words, others numbers."""
    kinds = ["words" if position in words else "" for position in range(len(columns))]
    head = [element("th", column, scope="col", **_class(kind)) for column, kind in zip(columns, kinds, strict=True)]
    body = [
        element("tr", *(element("td", cell, **_class(kind)) for cell, kind in zip(row, kinds, strict=True))) for row in rows
    ]
    content = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    return element("div", content, class_="wide")


def facts(rows: Iterable[tuple[str, ...]]) -> Markup:
    """Return a table of names and values."""
    return element(
        "table",
        *(element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows),
        class_="facts",
    )


def bullets(items: Iterable[str]) -> Markup:
    return element("ul", *(element("li", item) for item in items))


def picture(png: bytes, words: str) -> Markup:
    """Return a picture of 1200 x 600 pixels that is in the page, with what it shows in words."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return element("figure", element("img", src=source, alt=words, width="1200", height="600"))


def diff(text: str) -> Markup:
    """Return a unified diff with what was added and removed in colors."""
    return element("pre", *(together(_diff_line(line), "\n") for line in text.removesuffix("\n").split("\n")), class_="diff")


def page(title: str, generator: str, style: str, *content: str) -> str:
    """Return a whole page of its own; ``generator`` stands in its first line of metadata, to be known again by."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    head = together(
        element("meta", charset="utf-8"),
        "\n",
        element("meta", name_="generator", content=generator),
        "\n",
        element("meta", **{"http-equiv": "Content-Security-Policy", "content": policy}),
        "\n",
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        "\n",
        element("meta", name_="referrer", content="no-referrer"),
        "\n",
        element("title", title),
        "\n",
        element("style", Markup(style)),
    )
    body = element("body", element("main", *(together("\n", part) for part in content)))
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n{body}\n</html>\n'


def _class(kind: str) -> dict[str, str]:
    return {"class_": kind} if kind else {}


def _diff_line(line: str) -> Markup:
    kind = {"+": "ins", "-": "del"}.get(line[:1], "")
    if not kind or line.startswith(("+++ ", "--- ")):
        return escaped(line)
    return element(kind, line)
