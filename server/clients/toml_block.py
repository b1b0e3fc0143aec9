"""A marked block at the end of a TOML file: the text around it stays what it was, to the byte.

Tables may follow any TOML text, so nothing of it needs to be rewritten, and its comments and order are safe. Does not: change a
table that stands outside of the marks (that is refused), or write files.
"""

from __future__ import annotations

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


def cut(text: str, added: str) -> str | None:
    """Return the text without the block: what was added, or where it was edited since, what stands between the marks.

    None where there is no block.
    """
    if text.count(added) == 1:
        return text.replace(added, "")
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < begin:
        return None
    return text[:begin] + text[end + len(END) :].lstrip("\r\n")
