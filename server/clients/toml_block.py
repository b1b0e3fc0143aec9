"""A marked block at the end of a TOML file: the text around it stays what it was, to the byte.

Tables may follow any TOML text, so nothing of it needs to be rewritten, and its comments and order are safe. What goes out is
the block's own tables: a client that adds others writes them before the end mark, a trailing comment to it, and they stay. Does
not: change a table that stands outside of the marks (that is refused), or write files.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from .errors import ClientConfigError

BEGIN = "# >>> autoresearch: written by `autoresearch install`; `autoresearch uninstall` takes it out >>>"
END = "# <<< autoresearch <<<"


def read(text: str, name: str) -> dict[str, Any]:
    """Return the values of a text; raises `ClientConfigError`, with the line, where it is broken."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ClientConfigError(f"{name} is broken: {error}") from None


def append(text: str, tables: str) -> tuple[str, str]:
    """Return the text with a block of ``tables`` after it, and what was added: `cut` takes just that out."""
    newline = "\r\n" if "\r\n" in text else "\n"
    separator = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    added = f"{separator}{BEGIN}\n{tables}{END}\n".replace("\n", newline)
    return text + added, added


def cut(text: str, added: str, key: tuple[str, str]) -> str | None:
    """Return the text without the block: what was added, or where it was edited since, the marks and the tables of ``key``.

    None where there is no block, or where another value would go or change with it.
    """
    if added and text.count(added) == 1:
        without = text.replace(added, "")
    else:
        begin, end = text.find(BEGIN), text.find(END)
        if begin < 0 or end < begin:
            return None
        inside, after = text[begin + len(BEGIN) : end], text[end + len(END) :].lstrip("\r\n")
        # Others' tables, from the comments above the first of them; ours have none.
        others = re.search(rf"(?m)^(?:[ \t]*(?:#.*)?\r?\n)*[ \t]*\[(?!{re.escape('.'.join(key))}[.\]])", inside)
        without = text[:begin] + (inside[others.start() :] if others else "") + after
    wanted = read(text, "the file with the block")
    wanted.get(key[0], {}).pop(key[1], None)
    try:
        left = tomllib.loads(without)
    except tomllib.TOMLDecodeError:
        return None
    return without if left | {key[0]: left.get(key[0], {})} == wanted | {key[0]: wanted.get(key[0], {})} else None


def key_of(added: str) -> tuple[str, str]:
    """Return the key of the table that a block holds."""
    ((outer, tables),) = tomllib.loads(added).items()
    (name,) = tables
    return outer, name
